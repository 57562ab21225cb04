"""One run of a case: a load generator asks, and the proxy's processor time is taken around it."""

import json
import os
import re
import select
import socket
import ssl
import subprocess
import time
from collections import Counter

from .cases import GRPC_HEADERS
from .children import Cpu, memory
from .proxies import HERE
from .report import percentiles
from .site import connections_of


def tools_of(case):
    """What has to be installed for a case."""
    tools = {"openssl"} if case.way.tls else set()
    if case.streams:
        return tools | {"h2load", "nghttp"}
    return tools if case.idle or case.handshakes else tools | {"wrk"}


def run_load(case, port, child, seconds, site):
    """One run; `child` is the proxy, or nothing when the backend itself is asked."""
    if case.handshakes:
        generator, command, read = "tls-client", _handshakes(case, port, seconds, site), _read_handshakes
    elif case.streams:
        generator, command, read = "h2load", _h2load(case, port, seconds, site), _read_h2load
    else:
        generator, command, read = "wrk", _wrk(case, port, seconds), _read_wrk
    command = ["taskset", "-c", str(site.load_core), *command]

    stats_port = site.backends[case.way.backend]
    opened_before = connections_of(stats_port)
    before, began = child and Cpu.of(child), time.monotonic()
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        return {"failed": f"{generator} did not come to an end"}
    wall = time.monotonic() - began
    if child and not child.alive():
        return {"failed": f"{child.name} died: {child.last_words()}"}
    cpu = child and Cpu.of(child).since(before)
    opened = connections_of(stats_port) - opened_before - 1  # our own question

    run = read(ran, site) if ran.returncode == 0 else None
    if run is None:
        return {"failed": f"{generator}: {(ran.stderr or ran.stdout).strip()[-300:]}"}
    requests = run["requests"]
    if requests == 0:
        return {"failed": "no request was answered", "errors": run["errors"]}
    if run["bytes"] / requests < case.body:
        run["errors"]["short bodies"] = 1
    run["requests_per_second"] = requests / run["seconds"]
    run["backend_connections_per_request"] = max(0, opened) / requests
    if cpu:
        run["cpu_us"] = cpu.used / requests * 1e6
        run["user_us"] = run["cpu_us"] * cpu.user_share()
        run["system_us"] = run["cpu_us"] - run["user_us"]
        run["core_used"] = cpu.used / wall
        run["core_waited"] = cpu.waited / wall
    return run


def _url(case, port):
    return f"{'https' if case.way.tls else 'http'}://127.0.0.1:{port}{case.path}"


def _wrk(case, port, seconds):
    command = ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["--latency", "-s", os.path.join(HERE, "wrk.lua")]
    for header in case.headers:
        command += ["-H", header]
    return [*command, _url(case, port), "--", *case.script]


def _read_wrk(ran, _site):
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[-1].removeprefix("RESULT ")) if lines else None


def _h2load(case, port, seconds, site):
    command = ["h2load", "-t1", f"-c{case.connections}", f"-m{case.streams}", f"-D{seconds}"]
    # As wrk's OpenSSL and the handshakes' client choose.
    log = site.file("h2load.log")
    command += ["--tls13-ciphers=TLS_AES_256_GCM_SHA384", f"--log-file={log}"]
    if case.way.grpc:
        command += ["-d", site.file("grpc")]
        for header in GRPC_HEADERS:
            command += ["-H", header]
    open(log, "w").close()  # It appends.
    return [*command, _url(case, port)]


def _read_h2load(ran, site):
    """Its summary has counts, and its log the microseconds of each request in the last column."""
    duration = re.search(r"finished in ([\d.]+)(ms|s)", ran.stdout)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", ran.stdout)
    data = re.search(r"\((\d+)\) data", ran.stdout)
    if not (duration and counts and data):
        return None
    done, good, failed, errored, timeout = map(int, counts.groups())
    with open(site.file("h2load.log")) as log:
        times = Counter(int(line.rsplit("\t", 1)[1]) for line in log)
    p50, p99 = percentiles([times.items()], (0.5, 0.99))
    return {
        "requests": good,
        "bytes": int(data[1]),
        "seconds": float(duration[1]) / (1000 if duration[2] == "ms" else 1),
        "p50_us": p50 or 0,
        "p99_us": p99 or 0,
        "errors": {"status": done - good, "failed": failed, "error": errored, "timeout": timeout},
    }


def _handshakes(case, port, seconds, site):
    address = f"127.0.0.1:{port}"
    return [site.program("tls-client"), address, case.handshakes, str(case.connections), str(seconds)]


def _read_handshakes(ran, _site):
    run = json.loads(ran.stdout)
    p50, p99 = percentiles([run.pop("times")], (0.5, 0.99))
    return run | {"p50_us": (p50 or 0) * 1e6, "p99_us": (p99 or 0) * 1e6}


WAVE = 64


def run_idle(case, port, child, count, site):
    """Opens `count` connections with one request each, in waves, and looks at what they weigh.

    A wave before them stays open as well: code that has run once, and buffers for as many requests
    at once, are what a proxy needs to serve at all, and no connection's.
    """
    clients, unanswered, before = [], 0, None
    trust = ssl.create_default_context(cafile=site.file("cert.pem")) if case.way.tls else None
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
    try:
        while len(clients) < WAVE + count:
            if len(clients) == WAVE:
                time.sleep(1)
                before = memory(child)
            wave = []
            for _ in range(min(WAVE, WAVE + count - len(clients))):
                client = socket.create_connection(("127.0.0.1", port), timeout=5)
                if trust:
                    client = trust.wrap_socket(client, server_hostname="localhost")
                wave.append(client)
                clients.append(client)
            for client in wave:
                client.sendall(request)
            unanswered += sum(not _whole_answer(client) for client in wave)
        time.sleep(1)
        after = memory(child)
        closed = _readable(clients)
    except OSError as error:
        return {"failed": f"after {len(clients)} connections: {error!r}"}
    finally:
        for client in clients:
            client.close()
    if not child.alive():
        return {"failed": f"{child.name} died: {child.last_words()}"}
    return {
        "connections": count,
        "before_bytes": before,
        "after_bytes": after,
        "bytes_per_connection": (after - before) / count,
        "errors": {"unanswered": unanswered, "closed": closed},
    }


def _whole_answer(client):
    answer = b""
    while not answer.endswith(b"\r\n\r\nhello\n"):
        piece = client.recv(4096)
        if not piece:
            return False
        answer += piece
    return b" 200 " in answer.split(b"\r\n", 1)[0]


def _readable(clients):
    """How many have something to say, which on an idle connection can only be the end."""
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLIN | select.POLLRDHUP)
    return len(poll.poll(0))
