"""Where the backends, the proxy and the clients are: all on the loopback interface, or each in a network
namespace of its own, joined by veth pairs, whose links can be hurt."""

import contextlib
import ctypes
import os
import re
import shutil
import subprocess

from .children import free_port
from .proxies import Failed

CLONE_NEWNET = 0x40000000


class Loopback:
    """Everything on 127.0.0.1."""

    def __init__(self, backends):
        ports = set()
        while len(ports) < backends + 2:
            ports.add(free_port())
        self.proxy, self.admin, *self.backends = [f"127.0.0.1:{port}" for port in ports]
        self.skipped = {}

    @contextlib.contextmanager
    def inside(self, _who):
        yield

    def heal_all(self):
        pass

    def close(self):
        pass


class Namespaces:
    """The proxy has a link to each backend and one to the clients."""

    def __init__(self, backends):
        self.prefix = f"chaos-{os.getpid()}-"
        self.names = ["proxy", "clients", *(f"b{n + 1}" for n in range(backends))]
        self.backends = [f"10.77.{n + 1}.2:8000" for n in range(backends)]
        self.proxy, self.admin = "10.77.0.1:8080", "10.77.0.1:9900"
        self.skipped = {}
        self.home = open("/proc/self/ns/net")
        self.libc = ctypes.CDLL(None, use_errno=True)
        _remove_stale()
        try:
            self._build()
            self._probe()
        except BaseException:
            self.close()
            raise

    def _build(self):
        for name in self.names:
            _run("ip", "netns", "add", self.prefix + name)
            _run("ip", "-n", self.prefix + name, "link", "set", "lo", "up")
        proxy = self.prefix + "proxy"
        for number, name in enumerate(self.names[1:]):
            other = self.prefix + name
            _run("ip", "-n", proxy, "link", "add", name, "type", "veth",
                 "peer", "name", "proxy", "netns", other)
            _run("ip", "-n", proxy, "address", "add", f"10.77.{number}.1/24", "dev", name)
            _run("ip", "-n", other, "address", "add", f"10.77.{number}.2/24", "dev", "proxy")
            _run("ip", "-n", proxy, "link", "set", name, "up")
            _run("ip", "-n", other, "link", "set", "proxy", "up")

    def _probe(self):
        """Tries each trouble once; those that this kernel cannot make are skipped, with its words."""
        for kind, words in [("silence", ""), ("deaf", ""), ("loss", "0.1"), ("refused", ""),
                            ("unplugged", ""), ("narrow", "4mbit"), ("delay", "20ms")]:
            try:
                self.hurt(0, kind, words)
            except Failed as failed:
                self.skipped[kind] = str(failed)
            self.heal(0)

    @contextlib.contextmanager
    def inside(self, who):
        """Sockets made and processes started meanwhile are in that namespace, and stay there."""
        with open(f"/run/netns/{self.prefix}{who}") as namespace:
            self._enter(namespace)
        try:
            yield
        finally:
            self._enter(self.home)

    def _enter(self, namespace):
        if self.libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def hurt(self, backend, kind, words):
        """Troubles of the link between the proxy and a backend, both ways if nothing else is said."""
        name = f"b{backend + 1}"
        both = [(self.prefix + "proxy", name), (self.prefix + name, "proxy")]
        if kind == "silence":
            for place in both:
                _drop(*place)
        elif kind == "deaf":  # Requests arrive, but the answers do not.
            _drop(*both[0])
        elif kind == "loss":
            for place in both:
                _drop(*place, "-m", "statistic", "--mode", "random", "--probability", words)
        elif kind == "refused":
            _rule("-A", *both[1], "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
        elif kind == "unplugged":
            _run("ip", "-n", self.prefix + "proxy", "link", "set", name, "down")
        elif kind == "narrow":  # Up to 400 ms wait in the queue; what comes beyond is lost.
            for place, device in both:
                _run("tc", "-n", place, "qdisc", "add", "dev", device, "root",
                     "tbf", "rate", words, "burst", "16k", "latency", "400ms")
        elif kind == "delay":
            for place, device in both:
                _run("tc", "-n", place, "qdisc", "add", "dev", device, "root",
                     "netem", "delay", words)
        else:
            raise Failed(f"a link cannot have {kind}")

    def heal(self, backend):
        name = f"b{backend + 1}"
        for place, device in [(self.prefix + "proxy", name), (self.prefix + name, "proxy")]:
            # Rules for this link only: the proxy has those of the other links as well.
            for line in _run("ip", "netns", "exec", place, "iptables", "-S", "INPUT").splitlines():
                rule = line.split()
                if rule[:1] == ["-A"] and rule[2:4] == ["-i", device]:
                    _run("ip", "netns", "exec", place, "iptables", "-D", *rule[1:])
            _try("tc", "-n", place, "qdisc", "del", "dev", device, "root")
            _run("ip", "-n", place, "link", "set", device, "up")

    def heal_all(self):
        for backend in range(len(self.backends)):
            self.heal(backend)

    def close(self):
        for name in self.names:
            _try("ip", "netns", "del", self.prefix + name)
        self.home.close()


def missing():
    """Why there can be no namespaces here; nothing if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool, package in [("ip", "iproute2"), ("tc", "iproute2"), ("iptables", "iptables")]:
        if not shutil.which(tool):
            return f"{tool} is not installed: apt-get install {package}"
    return None


def _rule(action, place, device, *rule):
    _run("ip", "netns", "exec", place, "iptables", action, "INPUT", "-i", device, *rule)


def _drop(place, device, *match):
    _rule("-A", place, device, *match, "-j", "DROP")


def _run(*command):
    ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if ran.returncode != 0:
        words = (ran.stderr or ran.stdout).strip().splitlines()
        raise Failed(f"{' '.join(command)}: {words[0] if words else ran.returncode}")
    return ran.stdout


def _try(*command):
    with contextlib.suppress(Failed, subprocess.TimeoutExpired, OSError):
        _run(*command)


def _remove_stale():
    """Removes the namespaces of runs that were killed before they could."""
    for line in _run("ip", "netns", "list").splitlines():
        found = re.match(r"chaos-(\d+)-", line)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            _try("ip", "netns", "del", line.split()[0])
