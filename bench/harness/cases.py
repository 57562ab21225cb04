"""The cases: what is asked of a proxy."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """How a proxy is spoken to, and what it speaks to the backend."""

    tls: bool = False
    http2: bool = False
    backend: str = "http1"  # or "h2c"
    grpc: bool = False


@dataclass
class Case:
    name: str
    title: str
    path: str = "/"
    connections: int = 64
    streams: int = 0  # at once on each connection, of HTTP/2
    body: int = 0  # bytes in each response's body, at least
    headers: list = field(default_factory=list)
    script: list = field(default_factory=list)  # words for wrk.lua
    idle: bool = False  # It is memory that is measured.
    handshakes: str = ""  # "full" or "resumed": a new TLS connection for each request
    way: Way = Way()
    floor: str = "relay"  # what the others are held against, one of proxies.FLOORS
    note: str = ""


GRPC_PATH = "/bench.Unary/Echo"
GRPC_HEADERS = ["content-type: application/grpc", "te: trailers"]

# A message of 100 bytes, not compressed.
GRPC_MESSAGE = bytes([0, 0, 0, 0, 100]) + b"x" * 100

_H2 = {"connections": 16, "streams": 16}
_NO_BACKEND = " answers by itself, without a backend: it shows what that side costs by itself."

GROUPS = {
    "http1": [
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
        Case("idle", "Memory of idle keep-alive connections", idle=True),
    ],
    "tls": [
        Case(
            "tls",
            "Small GET over TLS, keep-alive, 64 connections",
            way=Way(tls=True),
            floor="tls-relay",
        ),
        Case(
            "tls-full",
            "A new TLS connection per request, none resumed, 64 at a time",
            handshakes="full",
            way=Way(tls=True),
            floor="rustls",
            note="rustls" + _NO_BACKEND,
        ),
        Case(
            "tls-resumed",
            "A new TLS connection per request, sessions resumed, 64 at a time",
            handshakes="resumed",
            way=Way(tls=True),
            floor="rustls",
            note="rustls" + _NO_BACKEND,
        ),
        Case(
            "idle-tls",
            "Memory of idle keep-alive connections over TLS",
            idle=True,
            way=Way(tls=True),
            floor="tls-relay",
        ),
    ],
    "http2": [
        Case(
            "h2",
            "Small GET, HTTP/2 in and HTTP/1.1 out, 16 connections of 16 streams",
            way=Way(http2=True),
            floor="h2",
            note="h2" + _NO_BACKEND,
            **_H2,
        ),
        Case(
            "h2-tls",
            "Small GET, HTTP/2 over TLS in and HTTP/1.1 out, 16 connections of 16 streams",
            way=Way(tls=True, http2=True),
            floor="h2",
            note="h2" + _NO_BACKEND,
            **_H2,
        ),
        Case(
            "h2-h2",
            "Small GET, HTTP/2 in and out, 16 connections of 16 streams",
            way=Way(http2=True, backend="h2c"),
            **_H2,
        ),
        Case(
            "grpc",
            "gRPC unary, 100 bytes each way, 16 connections of 16 streams",
            path=GRPC_PATH,
            way=Way(http2=True, backend="h2c", grpc=True),
            **_H2,
        ),
    ],
}
CASES = [case for group in GROUPS.values() for case in group]
