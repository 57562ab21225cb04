"""A gRPC server: grpc_server.py NAME [CERT KEY].

Its messages are bytes, so there is nothing to generate. It says which port it listens on, and what
becomes of calls that do not end by themselves.
"""

import sys
import threading
from concurrent import futures

import grpc

NAME = sys.argv[1]


def unary(request, context):
    """Sends the message back, and its caller's metadata, once as headers and once as trailers."""
    sent = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
    context.send_initial_metadata(sent)
    context.set_trailing_metadata(sent)
    return request


def name(request, context):
    return NAME.encode()


def busy(request, context):
    """The server that is called so has no time."""
    if NAME == "busy":
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
    return request


def count(request, context):
    """As many messages as it is asked for."""
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    """How many messages came, and how long they were together."""
    sizes = [len(request) for request in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def both(requests, context):
    """Each message back as it comes."""
    yield from requests


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


def fail_late(request, context):
    yield b"one"
    context.set_trailing_metadata([("x-why-bin", b"\0\xff")])
    context.abort(grpc.StatusCode.DATA_LOSS, "after one")


def hang(request, context):
    """Answers nothing; says how much time the caller gives it, and when the caller has had enough."""
    over = threading.Event()
    context.add_callback(over.set)
    print("hangs", request.decode(), min(round(context.time_remaining()), 999))
    over.wait()
    print("over", request.decode())
    return b""


def hang_after_one(request, context):
    yield b"one"
    yield hang(request, context)


def check(request, context):
    """grpc.health.v1.Health/Check, by hand: always `status = SERVING`."""
    return b"\x08\x01"


TEST = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Name": grpc.unary_unary_rpc_method_handler(name),
    "Busy": grpc.unary_unary_rpc_method_handler(busy),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "HangAfterOne": grpc.unary_stream_rpc_method_handler(hang_after_one),
}
HEALTH = {"Check": grpc.unary_unary_rpc_method_handler(check)}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers(
    [
        grpc.method_handlers_generic_handler("test.Test", TEST),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", HEALTH),
    ]
)
if len(sys.argv) > 2:
    cert, key = (open(path, "rb").read() for path in sys.argv[2:4])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("port", port)
server.wait_for_termination()
