"""That a proxy passes on unharmed what is going to be measured."""

import http.client
import ssl
import subprocess

from .cases import GRPC_HEADERS, GRPC_MESSAGE, GRPC_PATH


class Failed(Exception):
    """A proxy that does not start or does not work; the message says how."""


def check(name, port, way, site):
    """One request of each kind that is going to be measured."""
    wanted = [("GET", "/", None, b"hello\n")]
    if name != "rustls":  # It has but one answer.
        wanted += [
            ("GET", "/65536", None, b"x" * 65536),
            ("GET", "/1048576", None, b"x" * 1048576),
            ("POST", "/", b"x" * 16384, b"received 16384\n"),
        ]
    if way.grpc:
        wanted = [("POST", GRPC_PATH, GRPC_MESSAGE, GRPC_MESSAGE)]
    for method, path, body, expected in wanted:
        ask = _ask_http2 if way.http2 else _ask_http1
        try:
            got = ask(port, method, path, body, way, site)
        except (OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
            raise Failed(f"{name} fails {method} {path}: {error!r}") from error
        if got != expected:
            raise Failed(f"{name} fails {method} {path}: {len(got)} bytes: {got[:200]!r}")
    if way.grpc:
        _check_trailers(name, port, way, site)


def _ask_http1(port, method, path, body, way, site):
    """Asks in HTTP/1.1, and a body is sent in chunks; the answer's body."""
    if way.tls:
        trust = ssl.create_default_context(cafile=site.file("cert.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=trust)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    chunks = body and iter([body[at:at + 4096] for at in range(0, len(body), 4096)])
    headers = {"Transfer-Encoding": "chunked"} if body else {}
    try:
        connection.request(method, path, body=chunks, encode_chunked=bool(body), headers=headers)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    return content if response.status == 200 else b"status %d" % response.status


def _check_trailers(name, port, way, site):
    said = _ask_http2(port, "POST", GRPC_PATH, GRPC_MESSAGE, way, site, "--verbose")
    if b"grpc-status: 0" not in said:
        raise Failed(f"{name} does not pass on the trailers of a gRPC call")


def _ask_http2(port, method, path, body, way, site, *options):
    """Asks in HTTP/2, by prior knowledge or ALPN; the answer's body."""
    url = f"{'https' if way.tls else 'http'}://127.0.0.1:{port}{path}"
    command = ["nghttp", "--no-dep", "--timeout=5s", *options]
    if way.grpc:
        for header in GRPC_HEADERS:
            command += ["-H", header]
    if body:
        file = site.file("body")
        with open(file, "wb") as out:
            out.write(body)
        command += ["-H", f":method: {method}", "--data", file]
    ran = subprocess.run([*command, url], capture_output=True, timeout=10)
    return ran.stdout or ran.stderr
