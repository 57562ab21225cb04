"""A WebSocket client by HTTP/2 (RFC 8441): websocket_http2_client.py ADDRESS [CA].

It opens three WebSockets on one connection, beside an ordinary request, to a server that sends
everything back.
"""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes
from wsproto.frame_protocol import FrameProtocol, Opcode


class Connection:
    def __init__(self, address, ca=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.scheme = "https" if ca else "http"
        if ca:
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="a.test")
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events = []
        changed = self.wait(lambda event: isinstance(event, h2.events.RemoteSettingsChanged))
        assert changed.changed_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL].new_value == 1

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def wait(self, wanted):
        """The next event that is wanted; others stay for later."""
        while True:
            for event in self.events:
                if wanted(event):
                    self.events.remove(event)
                    return event
            self.flush()
            received = self.socket.recv(65536)
            assert received, "the connection is closed"
            for event in self.h2.receive_data(received):
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.events.append(event)

    def of(self, stream, kind):
        return self.wait(lambda event: isinstance(event, kind) and event.stream_id == stream)

    def request(self, method, *fields, end):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", self.scheme), (":authority", "a.test"), (":path", "/")]
        self.h2.send_headers(stream, [*head, *fields], end_stream=end)
        return stream


class WebSocket:
    def __init__(self, connection):
        self.connection = connection
        fields = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "echo")]
        self.stream = connection.request("CONNECT", (":protocol", "websocket"), *fields, end=False)
        response = connection.of(self.stream, h2.events.ResponseReceived)
        answer = dict(response.headers)
        assert answer[":status"] == "200", answer
        assert answer["sec-websocket-protocol"] == "echo", answer
        self.frames = FrameProtocol(client=True, extensions=[])

    def send(self, data):
        while data:
            room = self.connection.h2.local_flow_control_window(self.stream)
            room = min(room, self.connection.h2.max_outbound_frame_size)
            if room == 0:
                self.connection.wait(lambda event: isinstance(event, h2.events.WindowUpdated))
                continue
            self.connection.h2.send_data(self.stream, data[:room])
            data = data[room:]
        self.connection.flush()

    def message(self):
        message = b""
        while True:
            for frame in self.frames.received_frames():
                payload = frame.payload
                message += payload.encode() if isinstance(payload, str) else bytes(payload)
                if frame.message_finished:
                    return message
            data = self.connection.of(self.stream, h2.events.DataReceived)
            self.frames.receive_bytes(data.data)

    def close(self):
        self.send(self.frames.close(1000, "bye"))
        while True:
            for frame in self.frames.received_frames():
                if frame.opcode == Opcode.CLOSE:
                    assert frame.payload[0] == 1000, frame
                    self.connection.of(self.stream, h2.events.StreamEnded)
                    return
            data = self.connection.of(self.stream, h2.events.DataReceived)
            self.frames.receive_bytes(data.data)


connection = Connection(*sys.argv[1:])
sockets = [WebSocket(connection) for _ in range(3)]
for size in [0, 1, 125, 126, 70_000, 700_000]:
    messages = [bytes([65 + number]) * size for number in range(len(sockets))]
    for websocket, message in zip(sockets, messages):
        websocket.send(websocket.frames.send_data(message))
    for websocket, message in zip(sockets, messages):
        assert websocket.message() == message, size
# The server wants an upgrade, which this is not.
stream = connection.request("GET", end=True)
answer = dict(connection.of(stream, h2.events.ResponseReceived).headers)
assert answer[":status"] == "426", answer
for websocket in sockets:
    websocket.close()
