"""How each proxy is started to be measured."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

from .checks import Failed
from .children import Child, free_port, wait_until

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# `floor` stands for the one that a case has.
NAMES = ["floor", "nginx", "haproxy", "tinylb"]

# The program of each floor.
FLOORS = {"relay": "relay", "tls-relay": "tls-relay", "rustls": "tls-relay", "h2": "h2-backend"}

# What `compare` says when a program is missing.
INSTALL = {
    "wrk": "apt-get install wrk",
    "h2load": "apt-get install nghttp2-client",
    "nghttp": "apt-get install nghttp2-client",
    "openssl": "apt-get install openssl",
    "taskset": "apt-get install util-linux",
    "valgrind": "apt-get install valgrind",
    "perf": "apt-get install linux-perf",
    "nginx": "apt-get install nginx (and stop the service it starts)",
    "haproxy": "apt-get install haproxy (and stop the service it starts)",
}

# The first nginx that proxies to HTTP/2 backends otherwise than by gRPC.
NGINX_HTTP2_OUT = (1, 29, 4)


def build(package, profile="release"):
    """Builds a package by itself, so that it gets no feature because of another; its directory."""
    root = os.path.dirname(HERE)
    command = ["cargo", "build", "--profile", profile, "--quiet", "--package", package]
    if subprocess.run(command, cwd=root).returncode != 0:
        sys.exit(f"cargo could not build {package}")
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    found = subprocess.run(metadata, cwd=root, capture_output=True, text=True, check=True)
    return os.path.join(json.loads(found.stdout)["target_directory"], profile)


def require(tools):
    """Ends the program if one of them is not there."""
    for tool in sorted(tools):
        if not shutil.which(tool):
            sys.exit(f"{tool} is needed and not there: {INSTALL[tool]}")


def find(name, given=None):
    """A program's path, looking where Debian puts servers as well."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin"
    return shutil.which(given or name, path=path)


def version(name, program):
    """What the program says of itself, or nothing."""
    flag = {"tinylb": "--version", "h2load": "--version", "openssl": "version"}.get(name, "-v")
    try:
        ran = subprocess.run([program, flag], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+[\w.+~-]*", ran.stdout + ran.stderr)
    return found.group() if found else ""


def cannot(name, program, way):
    """Why a proxy cannot do what a case asks for, or nothing."""
    if name == "nginx" and way.backend == "h2c" and not way.grpc:
        said = version(name, program)
        if _numbers(said) < NGINX_HTTP2_OUT:
            return f"nginx {said} speaks HTTP/2 to backends for gRPC only."
    return ""


def _numbers(said):
    return tuple(int(number) for number in re.findall(r"\d+", said)[:3])


def start(name, program, way, site, wrapper=()):
    """Starts a proxy in front of the backend, under the program in `wrapper` if there is one; returns
    the child and its port."""
    directory = site.file(name)
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory, 0o755)
    port = free_port()
    if name in FLOORS:
        command = _floor(name, program, port, way, site)
    elif name == "nginx":
        prefix = ["-p", directory, "-e", os.path.join(directory, "nginx-error.log")]
        template = fill("nginx.conf", directory, _nginx_words(port, way, site, directory))
        command = [program, *prefix, "-c", template]
    elif name == "haproxy":
        template = fill("haproxy.cfg", directory, _haproxy_words(port, way, site))
        command = [program, "-db", "-f", template]
    else:
        command = _tinylb(program, port, way, site)
    child = Child(name, [*wrapper, *command], site.proxy_core, _output(name, directory))
    wait_until(lambda: not child.alive() or _listens(port), 10)
    if not child.alive() or not _listens(port):
        state = "it runs, but does not listen" if child.alive() else "it ended"
        child.stop()
        raise Failed(f"{name} did not start ({state}): {child.last_words()}")
    return child, port


def _floor(name, program, port, way, site):
    command = [program, f"127.0.0.1:{port}"]
    if way.tls:
        command += [site.file("cert.pem"), site.file("key.pem")]
    if name in ("relay", "tls-relay"):
        command += [f"127.0.0.1:{site.backends[way.backend]}"]
    return command


def _tinylb(program, port, way, site):
    scheme = "h2c" if way.backend == "h2c" else "http"
    command = [program, f"{scheme}://127.0.0.1:{site.backends[way.backend]}"]
    command += ["--listen", f"127.0.0.1:{port}", "--workers", "1"]
    if way.tls:
        command += ["--tls-cert", site.file("cert.pem"), "--tls-key", site.file("key.pem")]
    command += ["--admin", f"127.0.0.1:{free_port()}"]
    return [*command, "--access-log", "text" if site.access_log else "off"]


def _nginx_words(port, way, site, directory):
    listen = [""] + ["ssl"] * way.tls + ["http2"] * way.http2
    tls = [f"ssl_certificate {site.file('cert.pem')};",
           f"ssl_certificate_key {site.file('key.pem')};",
           "ssl_protocols TLSv1.2 TLSv1.3;"]
    log = f"{log_file('nginx', directory)} combined buffer=32k flush=1s"
    return {
        "PORT": port,
        "LISTEN": " ".join(listen),
        "TLS": "\n        ".join(tls if way.tls else []),
        "BACKEND": site.backends[way.backend],
        "HTTP_VERSION": "2" if way.backend == "h2c" and not way.grpc else "1.1",
        "DIR": directory,
        "NOFILE": site.nofile,
        "ACCESS_LOG": log if site.access_log else "off",
    }


def _haproxy_words(port, way, site):
    bind = ""
    if way.tls:
        alpn = "h2,http/1.1" if way.http2 else "http/1.1"
        bind = f" ssl crt {site.file('both.pem')} alpn {alpn}"
    elif way.http2:
        bind = " proto h2"
    return {
        "PORT": port,
        "BIND": bind,
        "BACKEND": site.backends[way.backend],
        "SERVER": " proto h2" if way.backend == "h2c" else "",
        "MAXCONN": min(8000, (site.nofile - 200) // 3),
        "LOG_TARGET": "log stdout format raw local0 info" if site.access_log else "",
        "LOG_FORMAT": "log global\n    option httplog" if site.access_log else "",
    }


def log_file(name, directory):
    """Where a proxy's access log goes: nginx writes a file, the others their standard output."""
    return os.path.join(directory, "access.log") if name == "nginx" else _output(name, directory)


def _output(name, directory):
    return os.path.join(directory, name + ".out")


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except OSError:
        return False


def fill(template, directory, words):
    """The template with its words filled in, written into `directory`."""
    with open(os.path.join(HERE, template)) as file:
        text = file.read()
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    path = os.path.join(directory, os.path.basename(template))
    with open(path, "w") as file:
        file.write(text)
    return path
