"""A proxy in front of backends that can do so much and no more, and clients that ask whether or not they are
answered."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass

from . import proxies
from .children import Child, machine_seconds, processor_seconds, stop_all, wait_until
from .net import Loopback
from .ordeal import listens
from .proxies import Failed
from .report import percentiles
from .resilience import Proxy

CORES = sorted(os.sched_getaffinity(0))

# With more than this share of the cores for everything that is started here, or a hundredth of the requests
# sent later than this, it would be the machine that is measured.
MOST_USED = 0.7
MOST_DELAY = 0.010


@dataclass(frozen=True)
class Backend:
    slots: int  # How many requests it works on at once.
    work: str  # As load-backend reads it.


@dataclass(frozen=True)
class Load:
    rate: float  # Requests per second.
    warm: float  # Seconds before it is measured,
    seconds: float  # and seconds for which it is.
    deadline: float  # After so many seconds an answer is useless.
    seed: int


class Stage:
    """Backends, and a proxy in front of them."""

    def __init__(self, name, kind, programs, template, words, backends, directory):
        os.mkdir(directory, 0o755)
        self.programs, self.directory, self.asked = programs, directory, 0
        self.net, self.work = Loopback(len(backends)), backends[0].work
        self.children, self.cores = [], ",".join(map(str, CORES))
        for number, backend in enumerate(backends):
            command = [programs["load-backend"], self.net.backends[number], f"b{number + 1}",
                       str(backend.slots), backend.work]
            output = os.path.join(directory, f"b{number + 1}.out")
            self.children.append(Child("backend", command, self.cores, output, listens=True))
        for child, address in zip(self.children, self.net.backends):
            if not wait_until(lambda: listens(address), 5):
                raise Failed(f"a backend did not start: {child.last_words()}")
        words = words | {"ENDPOINTS": ", ".join(f'"http://{b}"' for b in self.net.backends)}
        self.proxy = Proxy(name, kind, programs[kind], template, words, self.net, directory, self.cores)

    def ask(self, load):
        """What the client saw of this load, and what the machine had to do for it."""
        self.asked += 1
        # Enough that all can be stalled until the deadline and those that are due are still sent.
        connections = int(load.rate * load.deadline * 1.2) + 64
        command = [self.programs["load-client"], self.net.proxy, load.seed, load.rate, load.warm,
                   load.seconds, connections, load.deadline, self.work]
        output = os.path.join(self.directory, f"client-{self.asked}.json")
        client = Child("client", [str(word) for word in command], self.cores, output)
        try:
            ours = [client, self.proxy.child, *self.children]
            used, machine, began = processor_seconds(ours), machine_seconds(), time.monotonic()
            wait_until(lambda: not self.proxy.child.alive(), load.warm + load.seconds)
            used = processor_seconds(ours) - used
            busy, passed = (now - then for now, then in zip(machine_seconds(), machine))
            cores = len(CORES) * (time.monotonic() - began)
            # It asks until the deadline of the last one that counts, and each may take as long.
            if not wait_until(lambda: not client.alive(), 2 * load.deadline + 10):
                raise Failed("the client did not come to an end")
            if not self.proxy.child.alive():
                raise Failed(f"the proxy died: {self.proxy.child.last_words()}")
            with open(output) as file:
                report = json.load(file)
        except ValueError as error:
            raise Failed(f"the client failed: {client.last_words()}") from error
        finally:
            client.kill()
        report["good"] = sum(report["backends"].values())
        report["used"] = used / cores
        report["busy"] = busy / passed if passed else 0.0
        report["delay"] = percentiles([report["delays"]], [0.99])[0] or 0.0
        return report

    def close(self):
        for child in self.children:
            child.kill()
        stop_all()


def go_first():
    """What is measured needs little of the machine, but at once; whatever else runs here can wait, if we may
    say so."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def programs(kinds, tinylb=None, others=None):
    """The program of each kind that is there, and those of the load; what is missing is said."""
    built = proxies.build("bench")
    found = {name: os.path.join(built, name) for name in ("load-backend", "load-client")}
    for kind in dict.fromkeys(kinds):
        if kind == "tinylb":
            tinylb = tinylb or os.path.join(proxies.build("tinylb"), "tinylb")
            found[kind] = os.path.abspath(tinylb)
        elif path := proxies.find(kind, (others or {}).get(kind)):
            found[kind] = path
        else:
            say(f"SKIPPED: {kind}: not installed: {proxies.INSTALL[kind]}")
    return found


class Place:
    """A directory in memory where there is such a place; with it goes everything that was started."""

    def __init__(self, name, logs):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.path, self.logs = tempfile.mkdtemp(prefix=f"{name}-", dir=memory), logs
        os.chmod(self.path, 0o755)  # nginx's worker is another user when we are root.

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        stop_all()
        if self.logs:
            shutil.copytree(self.path, self.logs, dirs_exist_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def disturbances(runs):
    """Whether the machine was what was measured; `runs` are reports by what they are called."""
    used = max((run["used"] for run in runs.values()), default=0)
    lines = [f"All that was started used {used:.0%} of {len(CORES)} cores at most."]
    if used > MOST_USED:
        lines.append(f"Disturbed: that is more than {MOST_USED:.0%}, so the machine was measured.")
    late = {name: run for name, run in runs.items() if run["delay"] > MOST_DELAY}
    if late:
        worst = sorted(late, key=lambda name: -late[name]["delay"])[:5]
        each = ", ".join(f"{name} {late[name]['delay'] * 1000:.0f} ms (machine "
                         f"{late[name]['busy']:.0%} busy)" for name in worst)
        lines.append(f"Disturbed: a hundredth of the requests was sent too late in {len(late)} of "
                     f"{len(runs)} runs, the worst: {each}.")
    return lines


def milliseconds(seconds):
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:,.0f} ms"


def say(line):
    print(line, file=sys.stderr, flush=True)
