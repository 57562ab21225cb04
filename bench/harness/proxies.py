"""How each proxy is started to be measured, and that it works before it is."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys

from .children import Child, free_port, wait_until

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

NAMES = ["relay", "nginx", "haproxy", "tinylb"]

# What `compare` says when a program is missing.
INSTALL = {
    "wrk": "apt-get install wrk",
    "nginx": "apt-get install nginx (and stop the service it starts)",
    "haproxy": "apt-get install haproxy (and stop the service it starts)",
}


class Failed(Exception):
    """A proxy that does not start or does not work; the message says how."""


def build(package):
    """Builds a package by itself, so that it gets no feature because of another; its directory."""
    root = os.path.dirname(HERE)
    command = ["cargo", "build", "--release", "--quiet", "--package", package]
    if subprocess.run(command, cwd=root).returncode != 0:
        sys.exit(f"cargo could not build {package}")
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    found = subprocess.run(metadata, cwd=root, capture_output=True, text=True, check=True)
    return os.path.join(json.loads(found.stdout)["target_directory"], "release")


def find(name, given=None):
    """A program's path, looking where Debian puts servers as well."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin"
    return shutil.which(given or name, path=path)


def version(name, program):
    """What the program says of itself, or nothing."""
    if name in ("relay", "backend"):
        return ""
    flag = "--version" if name == "tinylb" else "-v"
    try:
        ran = subprocess.run([program, flag], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+[\w.+~-]*", ran.stdout + ran.stderr)
    return found.group() if found else ""


def start(name, program, backend_port, directory, core, access_log, nofile):
    """Starts a proxy in front of the backend; returns the child and its port."""
    port = free_port()
    nginx_log = f"{log_file(name, directory)} combined buffer=32k flush=1s"
    words = {
        "PORT": port,
        "BACKEND": backend_port,
        "DIR": directory,
        "NOFILE": nofile,
        "MAXCONN": min(8000, (nofile - 200) // 3),
        "ACCESS_LOG": nginx_log if access_log else "off",
        "LOG_TARGET": "log stdout format raw local0 info" if access_log else "",
        "LOG_FORMAT": "log global\n    option httplog" if access_log else "",
    }
    address, backend = f"127.0.0.1:{port}", f"127.0.0.1:{backend_port}"
    if name == "relay":
        command = [program, address, backend]
    elif name == "nginx":
        prefix = ["-p", directory, "-e", os.path.join(directory, "nginx-error.log")]
        command = [program, *prefix, "-c", fill("nginx.conf", directory, words)]
    elif name == "haproxy":
        command = [program, "-db", "-f", fill("haproxy.cfg", directory, words)]
    else:
        command = [program, f"http://{backend}", "--listen", address, "--workers", "1"]
        command += ["--admin", f"127.0.0.1:{free_port()}"]
        command += ["--access-log", "text" if access_log else "off"]
    child = Child(name, command, core, _output(name, directory))
    wait_until(lambda: not child.alive() or answers(port), 10)
    if not child.alive() or not answers(port):
        state = "it runs, but does not answer" if child.alive() else "it ended"
        child.stop()
        raise Failed(f"{name} did not start ({state}): {child.last_words()}")
    return child, port


def log_file(name, directory):
    """Where a proxy's access log goes: nginx writes a file, the others their standard output."""
    return os.path.join(directory, "access.log") if name == "nginx" else _output(name, directory)


def _output(name, directory):
    return os.path.join(directory, name + ".out")


def answers(port):
    try:
        return _ask(port, "GET", "/") == (200, b"hello\n")
    except (OSError, http.client.HTTPException):
        return False


def check(name, port):
    """One request of each kind that is going to be measured."""
    chunked = iter([b"x" * 4096] * 4)
    wanted = [
        ("GET", "/65536", None, b"x" * 65536),
        ("GET", "/1048576", None, b"x" * 1048576),
        ("POST", "/", chunked, b"received 16384\n"),
    ]
    for method, path, body, expected in wanted:
        try:
            status, got = _ask(port, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{name} fails {method} {path}: {error!r}") from error
        if status != 200 or got != expected:
            raise Failed(f"{name} fails {method} {path}: status {status}, {len(got)} bytes")


def _ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body=body, encode_chunked=body is not None,
                           headers={"Transfer-Encoding": "chunked"} if body is not None else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


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
