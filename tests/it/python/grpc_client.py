"""A gRPC client: grpc_client.py ADDRESS [--ca CA] CHECK...

Each check makes calls to the server in grpc_server.py, and fails where anything but the right answer
comes.
"""

import sys
import threading

import grpc

#: Seconds after which a call is not worth waiting for.
PATIENCE = 30


class Calls:
    """The server's methods, as bytes to bytes."""

    def __init__(self, channel):
        self.channel = channel

    def unary(self, method):
        return self.channel.unary_unary(f"/test.Test/{method}")

    def server_stream(self, method):
        return self.channel.unary_stream(f"/test.Test/{method}")

    def client_stream(self, method):
        return self.channel.stream_unary(f"/test.Test/{method}")

    def both_stream(self, method):
        return self.channel.stream_stream(f"/test.Test/{method}")


def failure(call):
    """How `call`, a function, fails."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call fails")


def unary(calls):
    for size in [0, 1, 1000, 100_000, 3_000_000]:
        message = bytes(range(256)) * (size // 256 + 1)
        assert calls.unary("Unary")(message, timeout=PATIENCE) == message


def server_stream(calls):
    received = list(calls.server_stream("Count")(b"10000", timeout=PATIENCE))
    assert received == [str(number).encode() for number in range(10_000)]
    assert list(calls.server_stream("Count")(b"0", timeout=PATIENCE)) == []


def client_stream(calls):
    messages = (bytes(size) for size in range(2000))
    assert calls.client_stream("Total")(messages, timeout=PATIENCE) == b"2000 1999000"
    assert calls.client_stream("Total")(iter([]), timeout=PATIENCE) == b"0 0"


def both_streams(calls):
    """Each message is sent when the one before has come back, so nobody may hold one."""
    turn = threading.Semaphore(1)

    def messages():
        for number in range(500):
            assert turn.acquire(timeout=PATIENCE)
            yield str(number).encode()

    answers = calls.both_stream("Both")(messages(), timeout=PATIENCE)
    for number, answer in enumerate(answers):
        assert answer == str(number).encode()
        turn.release()
    assert number == 499


def metadata(calls):
    sent = (("x-text", "a b, c"), ("x-twice", "1"), ("x-twice", "2"), ("x-bytes-bin", bytes(range(256))))
    _, call = calls.unary("Unary").with_call(b"", metadata=sent, timeout=PATIENCE)
    for received in [call.initial_metadata(), call.trailing_metadata()]:
        for name in ["x-text", "x-twice", "x-bytes-bin"]:
            expected = [value for key, value in sent if key == name]
            assert [value for key, value in received if key == name] == expected, received


def errors(calls):
    for details in ["", "why", "100 % žluťoučký\nkůň"]:
        error = failure(lambda: calls.unary("Fail")(details.encode(), timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == details, error
    error = failure(lambda: calls.unary("NoSuchMethod")(b"", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    answers = calls.server_stream("FailLate")(b"", timeout=PATIENCE)
    assert next(answers) == b"one"
    error = failure(lambda: next(answers))
    assert error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "after one", error
    assert ("x-why-bin", b"\0\xff") in error.trailing_metadata(), error


def deadline(calls):
    """Long enough for a server to get to it on a busy machine."""
    error = failure(lambda: calls.unary("Hang")(b"deadline", timeout=5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    answers = calls.server_stream("HangAfterOne")(b"late-deadline", timeout=5)
    assert next(answers) == b"one"
    assert failure(lambda: next(answers)).code() == grpc.StatusCode.DEADLINE_EXCEEDED


def cancellation(calls):
    answers = calls.server_stream("HangAfterOne")(b"cancelled")
    assert next(answers) == b"one"
    answers.cancel()
    assert failure(lambda: next(answers)).code() == grpc.StatusCode.CANCELLED


def many(calls):
    futures = [calls.unary("Unary").future(str(number).encode(), timeout=PATIENCE) for number in range(1000)]
    for number, future in enumerate(futures):
        assert future.result() == str(number).encode()


def compressed(calls):
    message = b"a" * 1_000_000
    answer = calls.unary("Unary")(message, compression=grpc.Compression.Gzip, timeout=PATIENCE)
    assert answer == message


def health(calls):
    check = calls.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=PATIENCE) == b"\x08\x01"


def names(calls):
    """Says which servers answer one connection's calls."""
    print(*sorted({calls.unary("Name")(b"", timeout=PATIENCE).decode() for _ in range(100)}))


def busy(calls):
    """Says how many calls are turned away."""
    codes = []
    for _ in range(40):
        try:
            assert calls.unary("Busy")(b"message", timeout=PATIENCE) == b"message"
        except grpc.RpcError as error:
            codes.append(error.code().name)
    print(len(codes), *set(codes))


def cut(calls):
    """The server goes in the middle of a call."""
    answers = calls.server_stream("HangAfterOne")(b"cut", timeout=PATIENCE)
    assert next(answers) == b"one"
    error = failure(lambda: next(answers))
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error


def unavailable(calls):
    error = failure(lambda: calls.unary("Unary")(b"", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    print(error.details())


def unimplemented(calls):
    error = failure(lambda: calls.unary("Unary")(b"", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    print(error.details())


def main(address, *arguments):
    # Retries are the balancer's here.
    options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    if arguments[0] == "--ca":
        _, ca, *arguments = arguments
        options.append(("grpc.ssl_target_name_override", "a.test"))
        credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
        channel = grpc.secure_channel(address, credentials, options)
    else:
        channel = grpc.insecure_channel(address, options)
    with channel:
        for check in arguments:
            globals()[check](Calls(channel))


main(*sys.argv[1:])
