"""Decide whether a recorded history of operations on registers is linearizable.

Every operation has a time of call and, when its outcome is known, a time of return. A history is linearizable when
each operation can be given one instant between the two at which it takes effect, such that all results are those of
a single register used by one client at a time. Operations on different keys never constrain each other
(locality: Herlihy and Wing 1990), so each key is judged by itself.

The search is Wing and Gong's (1993) with Lowe's memory of (operations done, state) pairs (2017): try any operation
that was called before the first return among those that remain; give up a branch that was seen before. An operation
without a known outcome may take effect at any time after its call, or never.

Judges only: histories are recorded by who runs the clients.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

Value = str | int | None
"""What a register holds; None before the first write."""


@dataclass(frozen=True)
class Read:
    """The operation's result is the value that was read."""


@dataclass(frozen=True)
class Write:
    value: Value


@dataclass(frozen=True)
class CompareAndSet:
    """Write `value` if the register holds `expected`. The result is True when it was written, False when not."""

    expected: Value
    value: Value


Call = Read | Write | CompareAndSet


@dataclass(frozen=True)
class Operation:
    """One call. `start` and `end` are in seconds on one clock; `end` is None when the outcome is not known.

    Leave out what certainly had no effect and told nothing (refused, never sent)."""

    client: int
    key: str
    call: Call
    result: Value | bool
    start: float
    end: float | None

    def __str__(self) -> str:
        end = "?" if self.end is None else f"{self.end:.6f}"
        outcome = "unknown" if self.end is None else repr(self.result)
        return f"[{self.start:.6f} {end}] client {self.client} {self.key}: {self.call} -> {outcome}"


@dataclass(frozen=True)
class Violation:
    """Why a history is not linearizable: the operations of one key, and the most that could be put in order."""

    key: str
    order: tuple[Operation, ...]
    """The longest sequence of operations that is possible."""

    stuck: tuple[Operation, ...]
    """What would have to come next; none of it fits."""

    def __str__(self) -> str:
        lines = [f"{self.key} is not linearizable. Possible up to:"]
        lines += [f"  {operation}" for operation in self.order[-12:]]
        lines.append("None of these can come next:")
        lines += [f"  {operation}" for operation in self.stuck]
        return "\n".join(lines)


def find_violation(history: Iterable[Operation]) -> Violation | None:
    """Return the first key's violation, None when every key is linearizable."""
    by_key: dict[str, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    for key in sorted(by_key):
        violation = _judge(key, by_key[key])
        if violation is not None:
            return violation
    return None


def _judge(key: str, history: Sequence[Operation]) -> Violation | None:
    operations = sorted(_relevant(history), key=lambda o: o.start)
    must_happen = sum(1 << place for place, o in enumerate(operations) if o.end is not None)
    seen: set[tuple[int, Value]] = set()
    done, state = 0, None  # type: tuple[int, Value]
    order: list[tuple[int, Value]] = []  # place, and the state before it
    longest: list[int] = []
    untried = [iter(_candidates(operations, done))]
    while done & must_happen != must_happen:
        for place in untried[-1]:
            fits, after = _step(state, operations[place])
            reached = done | 1 << place, after
            if fits and reached not in seen:
                seen.add(reached)
                order.append((place, state))
                done, state = reached
                untried.append(iter(_candidates(operations, done)))
                break
        else:
            if len(order) >= len(longest):
                longest = [place for place, _ in order]
            untried.pop()
            if not order:
                return _violation(key, operations, longest)
            place, state = order.pop()
            done &= ~(1 << place)
    return None


def _relevant(history: Sequence[Operation]) -> Iterable[Operation]:
    """Leave out what cannot matter, so that unknown outcomes do not make the search long.

    A read without a result says nothing. A write of unknown outcome whose value nobody ever saw may be taken never
    to have happened: whoever looked at the register between it and the next write would have seen it. A compare
    that failed looks, without saying at what, so then it is kept.
    """
    is_blind = any(isinstance(o.call, CompareAndSet) and o.result is False for o in history)
    observed: set[Value] = set()
    for operation in history:
        if isinstance(operation.call, Read) and operation.end is not None:
            assert not isinstance(operation.result, bool)
            observed.add(operation.result)
        elif isinstance(operation.call, CompareAndSet):
            observed.add(operation.call.expected)
    for operation in history:
        if operation.end is None:
            if isinstance(operation.call, Read):
                continue
            if operation.call.value not in observed and not is_blind:
                continue
        yield operation


def _candidates(operations: Sequence[Operation], done: int) -> list[int]:
    """Return what may take effect next: whatever was called before the first return among the rest.

    Known outcomes are tried first: the fewer unknown ones take effect, the shorter the search."""
    first_return = inf
    places = []
    for place in range(_lowest_not_done(done), len(operations)):
        if done >> place & 1:
            continue
        operation = operations[place]
        if operation.start > first_return:
            break
        places.append(place)
        if operation.end is not None and operation.end < first_return:
            first_return = operation.end
    possible = [p for p in places if operations[p].start <= first_return]
    return sorted(possible, key=lambda p: operations[p].end or inf)


def _lowest_not_done(done: int) -> int:
    return (~done & (done + 1)).bit_length() - 1


def _step(state: Value, operation: Operation) -> tuple[bool, Value]:
    """Return whether the operation's result is possible in `state`, and the state after it."""
    match operation.call:
        case Read():
            return operation.result == state, state
        case Write(value):
            return True, value
        case CompareAndSet(expected, value):
            is_met = state == expected
            fits = operation.end is None or operation.result is is_met
            return fits, value if is_met else state


def _violation(key: str, operations: Sequence[Operation], longest: Sequence[int]) -> Violation:
    done = sum(1 << place for place in longest)
    stuck = tuple(operations[place] for place in _candidates(operations, done))
    return Violation(key, tuple(operations[place] for place in longest), stuck)
