"""A WebSocket server that speaks HTTP/2 alone (RFC 8441): websocket_http2_server.py.

It sends every message back, and closes when it is told to. It says which port it listens on, and what
each client that has left closed with.
"""

import socket
import threading

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes, Settings
from wsproto.frame_protocol import FrameProtocol, Opcode


class WebSocket:
    def __init__(self):
        self.frames = FrameProtocol(client=False, extensions=[])
        self.message = []
        self.has_closed = False
        # What the client's windows have no room for yet, and whether nothing follows.
        self.unsent = b""
        self.is_over = False

    def receive(self, data):
        self.frames.receive_bytes(data)
        for frame in self.frames.received_frames():
            if frame.opcode == Opcode.CLOSE:
                code, reason = frame.payload
                print("closed", code.value if hasattr(code, "value") else code, reason)
                self.close(code, reason)
                self.is_over = True
            elif frame.opcode == Opcode.PING:
                self.unsent += self.frames.pong(frame.payload)
            elif frame.opcode != Opcode.PONG:
                self.message.append(frame.payload)
                if frame.message_finished:
                    self.answer(type(frame.payload)().join(self.message))
                    self.message = []

    def answer(self, message):
        if message == "close":
            self.close(4000, "as you wish")
        else:
            self.unsent += self.frames.send_data(message)

    def close(self, code, reason):
        if not self.has_closed:
            self.unsent += self.frames.close(code, reason)
        self.has_closed = True


class Connection:
    def __init__(self, stream):
        self.stream = stream
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        settings = {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
        self.h2.local_settings = Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.sockets = {}

    def serve(self):
        received = b""
        while True:
            for event in self.h2.receive_data(received):
                self.handle(event)
            for number in list(self.sockets):
                self.send(number, self.sockets[number])
            self.stream.sendall(self.h2.data_to_send())
            received = self.stream.recv(65536)
            if not received:
                return

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            is_socket = (":protocol", "websocket") in event.headers
            head = [(":status", "200"), ("sec-websocket-protocol", "echo")] if is_socket else [(":status", "426")]
            self.h2.send_headers(event.stream_id, head, end_stream=not is_socket)
            if is_socket:
                self.sockets[event.stream_id] = WebSocket()
        elif isinstance(event, h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.sockets:
                self.sockets[event.stream_id].receive(event.data)
        elif isinstance(event, h2.events.StreamReset):
            self.sockets.pop(event.stream_id, None)

    def send(self, number, websocket):
        """As much as there is room for."""
        while websocket.unsent:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                return
            self.h2.send_data(number, websocket.unsent[:room])
            websocket.unsent = websocket.unsent[room:]
        if websocket.is_over:
            self.h2.end_stream(number)
            del self.sockets[number]


listening = socket.create_server(("127.0.0.1", 0))
print("port", listening.getsockname()[1])
while True:
    stream, _ = listening.accept()
    threading.Thread(target=Connection(stream).serve, daemon=True).start()
