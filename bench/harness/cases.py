"""The cases: what is asked of a proxy, and one run of each."""

import http.client
import json
import os
import select
import socket
import subprocess
import time
from dataclasses import dataclass, field

from .children import Cpu, memory
from .proxies import HERE


@dataclass
class Case:
    name: str
    title: str
    path: str = "/"
    connections: int = 64
    body: int = 0  # bytes in each response's body, at least
    headers: list = field(default_factory=list)
    script: list = field(default_factory=list)  # words for wrk.lua
    note: str = ""


CASES = [
    Case("small", "Small GET, keep-alive, 64 connections"),
    Case("64k", "64 KiB bodies, 64 connections", "/65536", body=65536),
    Case("1m", "1 MiB bodies, 16 connections", "/1048576", connections=16, body=1048576),
    Case(
        "connect",
        "A new connection per request, 64 at a time",
        headers=["Connection: close"],
        note="The relay opens a new backend connection for each client connection; the others"
        " keep theirs. It is no floor here.",
    ),
    Case("post", "Chunked POST of 16 KiB (4 chunks), 64 connections", script=["post"]),
    Case("idle", "Memory of idle keep-alive connections"),
]


def run_load(case, port, child, seconds, core, backend_port):
    """One run of wrk; `child` is the proxy, or nothing when wrk asks the backend itself."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s"]
    command += ["--timeout", "10s", "--latency", "-s", os.path.join(HERE, "wrk.lua")]
    for header in case.headers:
        command += ["-H", header]
    command += [f"http://127.0.0.1:{port}{case.path}", "--", *case.script]

    opened_before = backend_connections(backend_port)
    before, began = child and Cpu.of(child), time.monotonic()
    try:
        wrk = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        return {"failed": "wrk did not come to an end"}
    wall = time.monotonic() - began
    if child and not child.alive():
        return {"failed": f"{child.name} died: {child.last_words()}"}
    cpu = child and Cpu.of(child).since(before)
    opened = backend_connections(backend_port) - opened_before - 1  # our own question

    lines = [line for line in wrk.stdout.splitlines() if line.startswith("RESULT ")]
    if wrk.returncode != 0 or not lines:
        return {"failed": f"wrk: {(wrk.stderr or wrk.stdout).strip()[-300:]}"}
    run = json.loads(lines[-1].removeprefix("RESULT "))
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


def backend_connections(port):
    """How many connections the backend has accepted so far."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/stats")
        return json.loads(connection.getresponse().read())["connections"]
    finally:
        connection.close()


WAVE = 64


def run_idle(port, child, count):
    """Opens `count` connections with one request each, in waves, and looks at what they weigh.

    A wave before them stays open as well: code that has run once, and buffers for as many requests
    at once, are what a proxy needs to serve at all, and no connection's.
    """
    clients, unanswered, before = [], 0, None
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
    try:
        while len(clients) < WAVE + count:
            if len(clients) == WAVE:
                time.sleep(1)
                before = memory(child)
            wave = []
            for _ in range(min(WAVE, WAVE + count - len(clients))):
                client = socket.create_connection(("127.0.0.1", port), timeout=5)
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
