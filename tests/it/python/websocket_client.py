"""A WebSocket client: websocket_client.py URL ADDRESS [CA].

It says all kinds of things to a server that sends them back, over a connection to ADDRESS, and which
extensions were agreed on.
"""

import faulthandler
import os
import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect


# Where it hangs, if it does: less than the time that it has.
faulthandler.dump_traceback_later(50, exit=True)


def open_connection(url, address, ca=None):
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=ca) if ca else None
    stream = socket.create_connection((host, int(port)), timeout=30)
    return connect(url, sock=stream, ssl=context, subprotocols=["other", "echo"])


with open_connection(*sys.argv[1:]) as connection:
    assert connection.subprotocol == "echo", connection.subprotocol
    print(connection.response.headers.get("Sec-WebSocket-Extensions"))
    for message in ["", "hello", "žluťoučký kůň", b"", bytes(range(256)), os.urandom(900_000), "a" * 900_000]:
        connection.send(message)
        assert connection.recv(timeout=30) == message
    # One message in several frames.
    connection.send(["in ", "three ", "parts"])
    assert connection.recv(timeout=30) == "in three parts"
    # Many under way at once.
    for number in range(1000):
        connection.send(str(number))
    for number in range(1000):
        assert connection.recv(timeout=30) == str(number)
    assert connection.ping().wait(30)
    connection.close(4001, "enough")

with open_connection(*sys.argv[1:]) as connection:
    connection.send("close")
    try:
        connection.recv(timeout=30)
        raise AssertionError("the server closes")
    except ConnectionClosedError as closed:
        assert (closed.rcvd.code, closed.rcvd.reason) == (4000, "as you wish"), closed.rcvd
