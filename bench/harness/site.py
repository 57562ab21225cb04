"""What is there once for all that are measured: backends, a certificate, a directory."""

import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

from .cases import GRPC_MESSAGE
from .children import Child, free_port, wait_until


@dataclass
class Site:
    """What is the same for all that are measured."""

    directory: str  # for configurations, logs and the certificate
    built: str  # where the programs of bench are
    proxy_core: int
    load_core: int
    access_log: bool
    nofile: int
    backends: dict = field(default_factory=dict)  # what they speak, and their ports

    def program(self, name):
        return os.path.join(self.built, name)

    def file(self, name):
        return os.path.join(self.directory, name)

    def prepare(self, tls):
        """Writes what the load generators send, and what those that speak TLS show."""
        with open(self.file("grpc"), "wb") as message:
            message.write(GRPC_MESSAGE)
        if tls:
            self._make_certificate()

    def start_backends(self):
        for speaks, program in (("http1", "backend"), ("h2c", "h2-backend")):
            port = free_port()
            command = [self.program(program), f"127.0.0.1:{port}"]
            child = Child(program, command, self.load_core, self.file(f"{program}.out"))
            if not wait_until(lambda: self._is_there(port), 5):
                sys.exit(f"{program} did not start: {child.last_words()}")
            self.backends[speaks] = port

    @staticmethod
    def _is_there(port):
        try:
            return connections_of(port) > 0
        except (OSError, http.client.HTTPException):
            return False

    def _make_certificate(self):
        """One that signs itself, with a key on P-256, the kind that costs servers least."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-nodes", "-days", "30", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", self.file("key.pem"), "-out", self.file("cert.pem")]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"openssl could not make a certificate: {ran.stderr.strip()}")
        with open(self.file("both.pem"), "w") as both:
            for name in ("cert.pem", "key.pem"):
                with open(self.file(name)) as part:
                    both.write(part.read())


def connections_of(port):
    """How many connections a backend has accepted so far."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/stats")
        return json.loads(connection.getresponse().read())["connections"]
    finally:
        connection.close()
