"""What befalls the backends, and when: drawn from a seed, the same for each proxy."""

from dataclasses import dataclass
from random import Random

# How long each kind of trouble lasts, in seconds.
KINDS = {
    # Of a backend's process.
    "kill": (0.5, 3.0),
    "hang": (1.5, 4.0),
    "slow": (1.5, 4.0),
    "reset": (1.5, 4.0),
    "unavailable": (1.5, 4.0),
    # Of its link, with --netns.
    "loss": (1.5, 4.0),
    "silence": (1.5, 4.0),
    "deaf": (1.5, 4.0),
    "unplugged": (1.5, 4.0),
    "refused": (0.5, 3.0),
    "narrow": (1.5, 4.0),
    "delay": (1.5, 4.0),
}
# Of the case pair-kill: how long each of the two stays down, how long the third is down and up in turn,
# and the pause until the next pair, in which every proxy takes all backends back.
PAIR_DOWN = (0.4, 1.5)
FLAP_DOWN = (0.1, 0.4)
FLAP_UP = (0.2, 0.8)
PAIR_PAUSE = (2.0, 3.0)

PROCESS = ["kill", "hang", "slow", "reset", "unavailable"]
LINK = ["loss", "silence", "deaf", "unplugged", "refused", "narrow", "delay"]


# The words of an event that happens to two backends at the same moment.
PAIR = "pair"


@dataclass(frozen=True)
class Event:
    """`backend` has a trouble from `begin` to `end`, in seconds from the start of the run."""

    begin: float
    end: float
    backend: int
    kind: str
    words: str = ""  # of which kind exactly

    def __str__(self):
        what = " ".join([self.kind, self.words]).strip()
        return f"{self.begin:6.2f} to {self.end:6.2f} s  b{self.backend + 1}  {what}"


def draw(seed, kinds, begin, end, backends, ill, grace, scale=1.0):
    """Events between `begin` and `end`. At most `ill` backends are ill at once, and one that was ill
    counts as ill for `grace` seconds more, until health checks can have seen that it is well."""
    random = Random(seed)
    events, deck, until = [], [], [begin] * backends
    now = begin
    while True:
        # Each kind comes before one comes again.
        deck = deck or random.sample(kinds, len(kinds))
        kind = deck.pop()
        length = random.uniform(*KINDS[kind]) * scale
        words = _words(random, kind)
        # Wait until few enough are ill.
        now = max(now, sorted(until)[backends - ill])
        well = [backend for backend in range(backends) if until[backend] <= now]
        backend = random.choice(well)
        if now + length > end:
            return events
        events.append(Event(round(now, 2), round(now + length, 2), backend, kind, words))
        until[backend] = now + length + grace
        now += random.uniform(0.1, 1.0) * scale


def draw_pairs(seed, begin, end, backends):
    """Events between `begin` and `end`: two backends are killed at the same moment, again and again, while
    a third one flaps, which is killed and started in turn. All others stay well."""
    random = Random(seed)
    events, now = [], begin
    while True:
        first, second, flapping, *_ = random.sample(range(backends), backends)
        # The third one flaps before the two are killed, and until both are back.
        killed = now + random.uniform(*FLAP_UP)
        back = [killed + random.uniform(*PAIR_DOWN) for _ in range(2)]
        if max(back) > end:
            return events
        # One number for both, so that nothing happens between the two.
        killed = round(killed, 3)
        events += [Event(killed, round(back[0], 3), first, "kill", PAIR),
                   Event(killed, round(back[1], 3), second, "kill", PAIR)]
        while now < max(back):
            down = random.uniform(*FLAP_DOWN)
            events.append(Event(round(now, 3), round(now + down, 3), flapping, "kill", "flaps"))
            now += down + random.uniform(*FLAP_UP)
        now = max(now, *back) + random.uniform(*PAIR_PAUSE)


def _words(random, kind):
    # Health checks see every other trouble of those that they could be kept from seeing.
    lies = random.choice(["", " lies"])
    if kind == "slow":
        return random.choice(["10 0", "1 300", "1 1500"]) + lies
    if kind == "reset":
        moment = random.choice(["accept", "request", "answer"])
        return f"{moment} {random.uniform(0.2, 1.0):.2f}" + ("" if moment == "accept" else lies)
    if kind == "unavailable":
        return lies.strip()
    if kind == "loss":
        return f"{random.uniform(0.05, 0.3):.2f}"
    if kind == "narrow":
        return f"{random.randint(1, 4)}mbit"
    if kind == "delay":
        return f"{random.choice([20, 100, 300])}ms"
    return ""

