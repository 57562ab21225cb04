"""A WebSocket server: websocket_server.py [CERT KEY].

It sends every message back, and closes when it is told to. It says which port it listens on, and what
each client that has left closed with.
"""

import ssl
import sys

from websockets.exceptions import ConnectionClosedError
from websockets.sync.server import serve


def echo(connection):
    try:
        for message in connection:
            if message == "close":
                connection.close(4000, "as you wish")
            else:
                connection.send(message)
    except ConnectionClosedError:
        pass  # Any code but 1000.
    print("closed", connection.close_code, connection.close_reason)


context = None
if len(sys.argv) > 1:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[1:3])
with serve(echo, "127.0.0.1", 0, ssl=context, subprotocols=["echo"]) as server:
    print("port", server.socket.getsockname()[1])
    server.serve_forever()
