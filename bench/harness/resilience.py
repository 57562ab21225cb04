"""How each proxy is started in front of backends that fall ill or are asked too much, and how often it says
it tried again."""

import collections
import http.client
import os
import re
from dataclasses import dataclass

from .children import Child, wait_until
from .proxies import Failed, fill


@dataclass(frozen=True)
class Variant:
    program: str
    template: str
    hold: str = ""
    # Whether its failures are ours: whether they fail the run.
    ours: bool = False
    # Whether an answer that has begun and breaks off is a failure that it could have kept away.
    holds: bool = False


# An answer has 100 KiB at most.
HOLD = ', hold = "128KiB"'

VARIANTS = {
    "tinylb": Variant("tinylb", "tinylb.toml", ours=True),
    "tinylb-hold": Variant("tinylb", "tinylb.toml", hold=HOLD, ours=True, holds=True),
    "tinylb-plain": Variant("tinylb", "tinylb-plain.toml"),
    "haproxy": Variant("haproxy", "haproxy.cfg"),
    "nginx": Variant("nginx", "nginx.conf"),
}


class Proxy:
    """A proxy that runs."""

    def __init__(self, name, kind, program, template, words, net, directory, cores):
        """`kind` is tinylb, haproxy or nginx; `words` are what else the template wants filled in."""
        self.name, self.kind, self.net, self.directory = name, kind, net, directory
        words = words | {"LISTEN": net.proxy, "ADMIN": net.admin, "DIR": directory}
        words |= {f"B{n + 1}": address for n, address in enumerate(net.backends)}
        config = fill(template, directory, words)
        if self.kind == "nginx":
            error_log = os.path.join(directory, "nginx-error.log")
            command = [program, "-p", directory, "-e", error_log, "-c", config]
        elif self.kind == "haproxy":
            command = [program, "-db", "-f", config]
        else:
            command = [program, "run", "-c", config]
        with net.inside("proxy"):
            self.child = Child(name, command, cores, os.path.join(directory, name + ".out"))
        wait_until(lambda: not self.child.alive() or self._answers(), 10)
        if not self.child.alive() or not self._answers():
            state = "it runs, but does not answer" if self.child.alive() else "it ended"
            self.child.stop()
            raise Failed(f"{name} did not start ({state}): {self.child.last_words()}")

    def _answers(self):
        try:
            return self._get(self.net.proxy, "/healthz") == (200, "ok\n")
        except (OSError, http.client.HTTPException):
            return False

    def _get(self, address, path):
        with self.net.inside("proxy"):
            connection = http.client.HTTPConnection(address, timeout=5)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()

    def left_behind(self):
        """What a tinylb should not have left behind when all clients are gone, in words."""
        if self.kind != "tinylb":
            return []
        found = []
        if not wait_until(lambda: not self._in_flight(), 3):
            found.append(f"{self._in_flight()} requests are in flight though no client is there")
        with open(self.child.output, errors="replace") as file:
            panics = [line.strip() for line in file if "panicked at" in line]
        if panics:
            found.append(f"{len(panics)} panics, the first: {panics[0]}")
        return found

    def _in_flight(self):
        try:
            metrics = self._get(self.net.admin, "/metrics")[1]
        except (OSError, http.client.HTTPException):
            return 0
        pattern = r"^tinylb_endpoint_requests_in_flight\{.*\} (\d+)"
        return sum(map(int, re.findall(pattern, metrics, re.MULTILINE)))

    def retries(self):
        """How often it sent a request once more, by the reasons it knows; nothing if it cannot say."""
        try:
            if self.kind == "tinylb":
                return _by_reason(self._get(self.net.admin, "/metrics")[1])
            if self.kind == "haproxy":
                return _haproxy(self.child.output)
            return _nginx(os.path.join(self.directory, "access.log"))
        except (OSError, http.client.HTTPException, ValueError):
            return None


def _by_reason(metrics):
    reasons = collections.Counter()
    for labels, count in re.findall(r"^tinylb_retries_total\{(.*)\} (\d+)", metrics, re.MULTILINE):
        reason = re.search(r'reason="([^"]*)"', labels)
        reasons[reason[1] if reason else "?"] += int(count)
    return {reason: count for reason, count in reasons.items() if count}


def _haproxy(path):
    """`option httplog` ends its counts of connections with the retries: `1/1/0/0/2`, or `+2` where the
    last went to another server."""
    with open(path, errors="replace") as file:
        found = [re.search(r" \d+/\d+/\d+/\d+/\+?(\d+) \d+/\d+ ", line) for line in file]
    return {"retry-on": sum(int(counts[1]) for counts in found if counts)}


def _nginx(path):
    """Each try has its address in the line: `[127.0.0.1:1, 127.0.0.1:2]`."""
    with open(path, errors="replace") as file:
        return {"next upstream": sum(line.split("[")[1].count(",") for line in file if "[" in line)}
