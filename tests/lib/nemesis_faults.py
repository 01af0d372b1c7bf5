"""Which faults a run brings, when, and to whom: decided from a seed alone (pure).

Who leads is not known beforehand, so targets are named by their part: `leader`, or the nth of the others. The driver
(nemesis_driver.py) looks up who that is and does the damage. The network is a set of one-way links that are cut, which
covers partitions of every shape.
"""

import random
from dataclasses import dataclass
from itertools import permutations

LEADER = 0
"""The part played by who leads when the fault begins; 1 … n-1 are the other managers in the order of their names."""

Part = int
Links = frozenset[tuple[Part, Part]]
"""(from, to): what the first sends to the second is lost."""

SHORTEST_SECONDS, LONGEST_SECONDS = 0.3, 1.6
"""Below and well above the longest patience of a follower, 0.8 s."""

LONGEST_PAUSE_SECONDS = 0.6
CLOCK_JUMPS_SECONDS = (-120.0, -5.0, -0.4, 0.4, 5.0, 120.0)


@dataclass(frozen=True)
class Kill:
    """SIGKILL; the supervisor starts it again."""

    parts: frozenset[Part]


@dataclass(frozen=True)
class Stop:
    """SIGSTOP, then SIGCONT: what a swapping or migrated machine looks like."""

    parts: frozenset[Part]


@dataclass(frozen=True)
class Cut:
    shape: str
    links: Links


@dataclass(frozen=True)
class FullDisk:
    """No byte left where the journal lies; who is killed must then start on it and cannot open a new segment."""

    parts: frozenset[Part]
    is_killed: bool


@dataclass(frozen=True)
class ClockJump:
    """The wall clock of the manager's host jumps, and stays so."""

    part: Part
    seconds: float


Fault = Kill | Stop | Cut | FullDisk | ClockJump


@dataclass(frozen=True)
class Round:
    number: int
    faults: tuple[Fault, ...]
    """All begin at once."""

    seconds: float
    """How long they last."""

    pause_seconds: float
    """From their end to the next round: often too short to recover."""


def plan(seed: int, rounds: int, managers: int, *, kinds: frozenset[str] = frozenset()) -> list[Round]:
    """Return the rounds of a run; `kinds` limits them to faults whose `name_of` begins with one of these words."""
    source = random.Random(seed)
    planned = []
    for number in range(1, rounds + 1):
        faults = [_fault(source, managers, kinds)]
        if source.random() < 0.3:
            faults.append(_fault(source, managers, kinds))
        seconds = source.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
        pause_seconds = source.uniform(0.0, LONGEST_PAUSE_SECONDS)
        planned.append(Round(number, tuple(faults), round(seconds, 3), round(pause_seconds, 3)))
    return planned


def name_of(fault: Fault) -> str:
    """Return the fault's kind as a word, finer than its class."""
    match fault:
        case Kill(parts):
            return "kill-leader" if parts == {LEADER} else f"kill-{len(parts)}"
        case Stop(parts):
            return "stop-leader" if parts == {LEADER} else f"stop-{len(parts)}"
        case Cut(shape, _):
            return f"cut-{shape}"
        case FullDisk(_, is_killed):
            return "full-disk-kill" if is_killed else "full-disk"
        case ClockJump():
            return "clock"


def _fault(source: random.Random, managers: int, kinds: frozenset[str]) -> Fault:
    while True:
        fault = _any_fault(source, managers)
        if not kinds or any(name_of(fault).startswith(kind) for kind in kinds):
            return fault


def _any_fault(source: random.Random, managers: int) -> Fault:
    match source.choices(("kill", "stop", "cut", "disk", "clock"), (3, 3, 6, 1, 1))[0]:
        case "kill":
            return Kill(_victims(source, managers))
        case "stop":
            return Stop(_victims(source, managers))
        case "cut":
            return _cut(source, managers)
        case "disk":
            return FullDisk(frozenset({source.randrange(managers)}), is_killed=source.random() < 0.7)
        case _:
            return ClockJump(source.randrange(managers), source.choice(CLOCK_JUMPS_SECONDS))


def _victims(source: random.Random, managers: int) -> frozenset[Part]:
    """Mostly the leader, or a minority with or without it; now and then a majority, or all."""
    draw = source.random()
    if draw < 0.4:
        return frozenset({LEADER})
    if draw < 0.8:
        return frozenset(source.sample(range(managers), source.randint(1, (managers - 1) // 2)))
    return frozenset(source.sample(range(managers), source.randint(managers // 2 + 1, managers)))


def _cut(source: random.Random, managers: int) -> Cut:
    others = range(1, managers)
    one = source.choice(others)
    shape = source.choice(
        (
            "leader-alone",
            "halves",
            "leader-deaf",
            "leader-mute",
            "leader-to-one",
            "one-to-leader",
            "one-deaf",
            "ring",
            "random",
        )
    )
    match shape:
        case "leader-alone":
            return Cut(shape, parted(managers, {LEADER}))
        case "halves":
            minority = set(source.sample(range(managers), (managers - 1) // 2))
            return Cut(shape, parted(managers, minority))
        case "leader-deaf":
            return Cut(shape, frozenset((other, LEADER) for other in others))
        case "leader-mute":
            return Cut(shape, frozenset((LEADER, other) for other in others))
        case "leader-to-one":
            return Cut(shape, frozenset({(LEADER, one)}))
        case "one-to-leader":
            return Cut(shape, frozenset({(one, LEADER)}))
        case "one-deaf":
            return Cut(shape, frozenset((other, one) for other in range(managers) if other != one))
        case "ring":
            return Cut(shape, _all_but_neighbours(source, managers))
        case _:
            links = list(permutations(range(managers), 2))
            return Cut(shape, frozenset(source.sample(links, source.randint(1, len(links) // 2))))


def parted(managers: int, side: set[Part]) -> Links:
    """Return the links between `side` and all others, both ways."""
    return frozenset((a, b) for a, b in permutations(range(managers), 2) if (a in side) != (b in side))


def _all_but_neighbours(source: random.Random, managers: int) -> Links:
    """A ring, where everybody sees a majority of five and no two the same; of three, a chain: one link is cut."""
    order = list(range(managers))
    source.shuffle(order)
    if managers == 3:
        return frozenset({(order[0], order[1]), (order[1], order[0])})
    near = {frozenset((order[i], order[(i + 1) % managers])) for i in range(managers)}
    return frozenset((a, b) for a, b in permutations(range(managers), 2) if frozenset((a, b)) not in near)
