"""Child processes: started on one core, measured through /proc, ended by their pids."""

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """A process we started. Whatever it prints goes to a file, whose end is shown if it fails."""

    running: list["Child"] = []

    def __init__(self, name, command, core, output, listens=False):
        """One that `listens` takes lines on its standard input. `core` may be several: "0,1"."""
        self.name, self.output = name, output
        # Should this program be killed outright, the kernel ends the child. KILL also ends one that is
        # stopped, and those that listen may be.
        death = "KILL" if listens else "TERM"
        wrapper = ["setpriv", "--pdeathsig", death] if shutil.which("setpriv") else []
        wrapper += ["taskset", "-c", str(core)]
        with open(output, "ab") as file:
            self.process = subprocess.Popen(
                wrapper + command,
                stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on.
            )
        Child.running.append(self)

    def alive(self):
        return self.process.poll() is None

    def tell(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def last_words(self, count=400):
        with open(self.output, "rb") as file:
            file.seek(max(0, os.path.getsize(self.output) - count))
            return file.read().decode(errors="replace").strip()

    def pids(self):
        """The process and all its descendants."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for tid in _tasks(pid):
                todo += [int(child) for child in _read(f"/proc/{pid}/task/{tid}/children").split()]
        return found

    def kill(self):
        """Ends it at once, without asking."""
        if self in Child.running:
            Child.running.remove(self)
        self.process.kill()
        self.process.wait(5)
        if self.process.stdin:
            self.process.stdin.close()

    def stop(self):
        """Asks, waits, insists."""
        if self not in Child.running:
            return
        Child.running.remove(self)
        if not self.alive():
            return
        descendants = self.pids()[1:]
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            for pid in descendants:
                _kill(pid)
            self.process.kill()
            self.process.wait(5)


def stop_all():
    for child in list(Child.running):
        child.stop()


@dataclass
class Cpu:
    """Processor time used so far by a process tree, in seconds."""

    used: float = 0.0  # by the scheduler's clock, to the nanosecond
    waited: float = 0.0  # runnable, while something else had the core
    user: int = 0  # by the tick, which is good enough to split `used`
    system: int = 0

    @staticmethod
    def of(child):
        cpu = Cpu()
        for pid in child.pids():
            # /proc/PID/schedstat speaks of the first thread only.
            for tid in _tasks(pid):
                used, waited = _read(f"/proc/{pid}/task/{tid}/schedstat", "0 0").split()[:2]
                cpu.used += int(used) / 1e9
                cpu.waited += int(waited) / 1e9
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if fields:
                cpu.user += int(fields[11])
                cpu.system += int(fields[12])
        if cpu.used == 0:  # A kernel without schedstat.
            cpu.used = (cpu.user + cpu.system) / TICKS
        return cpu

    def since(self, before):
        return Cpu(
            self.used - before.used,
            self.waited - before.waited,
            self.user - before.user,
            self.system - before.system,
        )

    def user_share(self):
        ticks = self.user + self.system
        return self.user / ticks if ticks else 0.0


def processor_seconds(children):
    """What process trees have used so far, threads that have ended included; to the tick."""
    total = 0
    for child in children:
        for pid in child.pids():
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12]) if fields else 0
    return total / TICKS


def machine_seconds():
    """What all processors have done so far, whatever for: busy, and in all."""
    ticks = [int(field) for field in _read("/proc/stat").split("\n")[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / TICKS, sum(ticks) / TICKS


def memory(child):
    """Bytes of memory of a process tree, what it shares counted once (PSS)."""
    total = 0
    for pid in child.pids():
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def free_port():
    """A port below the ephemeral range, so that no outgoing connection can take it meanwhile."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def raise_nofile(wanted):
    """As many descriptors as we may have, up to `wanted`, for us and our children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((wanted, max(hard, wanted)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def exit_on_signals():
    """A signal ends the program the ordinary way, so that `finally` ends the children. The first
    one does; a second must not get between."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(received, _frame):
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + received)

    for number in numbers:
        signal.signal(number, leave)


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _read(path, otherwise=""):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return otherwise


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
