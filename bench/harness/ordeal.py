"""One proxy in one storm: backends, proxy and clients are started, things happen to the backends at their
times, and what the clients saw is brought home."""

import collections
import json
import os
import signal
import socket
import time

from .children import Child, Cpu, stop_all, wait_until
from .proxies import Failed
from .resilience import VARIANTS, Proxy
from .storm import LINK, PAIR

# Each client asks a share of the requests, by a share of the connections. With the 96 each of the storm, all
# can be stalled on half of the backends for more than a second, and those that are due next are still sent
# in time.
CLIENTS = 3

# Longer than any of the proxies takes for its tries: four times a second, and the time to connect.
TIMEOUT = 10


class Backends:
    def __init__(self, program, net, directory, cores):
        self.program, self.net, self.directory, self.cores = program, net, directory, cores
        self.children = [None] * len(net.backends)
        # When each of a pair was killed, by the moment that was planned.
        self.killed = collections.defaultdict(list)
        for number in range(len(net.backends)):
            self.start(number)
        for number in range(len(net.backends)):
            if not wait_until(lambda: self.listens(number), 5):
                raise Failed(f"a backend did not start: {self.children[number].last_words()}")

    def start(self, number):
        name, address = f"b{number + 1}", self.net.backends[number]
        command = [self.program, address, name, self.posts(number)]
        output = os.path.join(self.directory, f"{name}.out")
        with self.net.inside(name):
            self.children[number] = Child(name, command, self.cores, output, listens=True)

    def listens(self, number):
        with self.net.inside("proxy"):
            return listens(self.net.backends[number])

    def posts(self, number):
        return os.path.join(self.directory, f"posts-b{number + 1}")

    def posts_twice(self):
        """How many POSTs a backend received though one had received them before."""
        total, ids = 0, set()
        for number in range(len(self.children)):
            with open(self.posts(number)) as file:
                lines = file.read().split()
            total += len(lines)
            ids.update(lines)
        return total - len(ids)

    def begin(self, event):
        child = self.children[event.backend]
        if event.kind in LINK:
            self.net.hurt(event.backend, event.kind, event.words)
        elif event.kind == "kill":
            # Its end is not waited for, so that two can be killed at the same moment.
            child.process.kill()
            if event.words == PAIR:
                self.killed[event.begin].append(time.monotonic())
        elif event.kind == "hang":
            child.process.send_signal(signal.SIGSTOP)
        else:
            child.tell(f"{event.kind} {event.words}")

    def end(self, event):
        child = self.children[event.backend]
        if event.kind in LINK:
            self.net.heal(event.backend)
        elif event.kind == "kill":
            child.kill()
            self.start(event.backend)
        elif event.kind == "hang":
            child.process.send_signal(signal.SIGCONT)
        else:
            child.tell("well")


def listens(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    except OSError:
        return False


def run(name, programs, template, net, events, options, seed, directory):
    """What came of it: the clients' reports and what else is known. `Failed` if it could not be run."""
    backends = clients = None
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    try:
        backends = Backends(programs["chaos-backend"], net, directory, cores)
        variant = VARIANTS[name]
        words = {"HOLD": variant.hold, "TRIES": options.tries, "RETRIES": options.tries - 1}
        proxy = Proxy(name, variant.program, programs[name], template, words, net, directory, cores)
        clients = start_clients(programs["chaos-client"], net, options, seed, directory, cores)
        began, began_at = time.monotonic(), time.time()
        late, died = pass_time(events, backends, proxy, began, options.seconds)
        reports = [bring_home(client, options, began) for client in clients]
        return {
            "began": began_at,
            "reports": reports,
            "faults": [died] if died else proxy.left_behind(),
            "late": late,
            "waited": Cpu.of(proxy.child).waited / options.seconds,
            "posts_twice": backends.posts_twice(),
            "pairs": [max(times) - min(times) for times in backends.killed.values()],
            "retries": None if died else proxy.retries(),
        }
    finally:
        for child in [*(clients or []), *(backends.children if backends else [])]:
            child.kill()
        stop_all()
        net.heal_all()


def start_clients(program, net, options, seed, directory, cores):
    clients = []
    with net.inside("clients"):
        for number in range(CLIENTS):
            command = [program, net.proxy, seed * CLIENTS + number, options.rate / CLIENTS,
                       options.seconds, options.connections // CLIENTS, TIMEOUT]
            output = os.path.join(directory, f"client-{number + 1}.json")
            clients.append(Child("client", [str(word) for word in command], cores, output))
    return clients


def pass_time(events, backends, proxy, began, seconds):
    """Lets the events happen. For how long the machine stood still at worst, and why the proxy died."""
    actions = [(event.begin, backends.begin, event) for event in events]
    actions += [(event.end, backends.end, event) for event in events]
    actions.sort(key=lambda action: action[0])
    late = 0.0
    while (now := time.monotonic() - began) < seconds:
        while actions and actions[0][0] <= now:
            _, act, event = actions.pop(0)
            act(event)
        if not proxy.child.alive():
            status = proxy.child.process.returncode
            return late, f"the proxy died with {status}: {proxy.child.last_words(200)}"
        nap = 0.02
        asleep = time.monotonic()
        time.sleep(nap)
        late = max(late, time.monotonic() - asleep - nap)
    return late, None


def bring_home(client, options, began):
    """The client's report; it ends when its last request is answered or given up."""
    left = began + options.seconds + TIMEOUT + 5 - time.monotonic()
    if not wait_until(lambda: not client.alive(), max(1, left)):
        raise Failed("a client did not come to an end")
    try:
        with open(client.output) as file:
            return json.load(file)
    except ValueError as error:
        raise Failed(f"a client failed: {client.last_words()}") from error
