"""Record what clients asked and were told, so that it can be judged and looked at afterwards.

An operation has one of three ends: a result, *unknown* (it may take effect later or never), or *refused* (it certainly
had no effect and told nothing), which is counted and left out of the history. Anything else is unexpected, kept, and
fails the run. Which error is which is decided here, by what `proto/errors.py` promises, and by nothing more lenient:
an error that promises that nothing was written is believed, so that a broken promise shows as a violation.
Judging is linearizability.py's; who calls is nemesis_clients.py.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from lib.linearizability import Call, CompareAndSet, Operation, Read, Value, Violation, Write, find_violation

from pyswarm.proto.errors import (
    AlreadyExists,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    OutOfSequence,
    SwarmError,
    Unavailable,
    Unreachable,
)


class End(Enum):
    NOT_MET = "not met"
    """The condition of a conditional write did not hold."""
    UNKNOWN = "unknown"
    REFUSED = "refused"
    UNEXPECTED = "unexpected"


def end_of(error: SwarmError) -> End:
    """Return what an error tells about the call that failed with it."""
    match error:
        case OutcomeUnknown():
            return End.UNKNOWN
        case Unreachable():
            return End.UNKNOWN if error.was_sent else End.REFUSED
        case OutOfSequence() | NotFound() | AlreadyExists():
            return End.NOT_MET
        case Unavailable() | NotLeader():
            return End.REFUSED
        case _:
            return End.UNEXPECTED


@dataclass
class History:
    """`now` is the one clock of all clients, in seconds."""

    now: Callable[[], float]
    operations: list[Operation] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    last_failure: str = ""
    refused: list[str] = field(default_factory=list)
    """Writes that were promised to have had no effect, with the promise: who broke it is found here."""

    def succeeded(self, client: int, key: str, call: Call, start: float, result: Value | bool = True) -> None:
        self.ends[f"{_name(call)} ok"] += 1
        self.operations.append(Operation(client, key, call, result, start, self.now()))

    def failed(self, client: int, key: str, call: Call, start: float, error: SwarmError) -> End:
        end = end_of(error)
        self.last_failure = error.message
        if end is End.NOT_MET and isinstance(call, Read):
            end = End.UNEXPECTED  # every object that is read without a name exists throughout
        self.ends[f"{_name(call)} {end.value}"] += 1
        if end is End.UNEXPECTED:
            self.unexpected.append(_told(client, key, call, start, self.now(), error))
        elif isinstance(call, Read):
            pass  # a read that failed tells nothing
        elif end is End.NOT_MET:
            self.operations.append(Operation(client, key, call, False, start, self.now()))
        elif end is End.UNKNOWN:
            self.operations.append(Operation(client, key, call, None, start, None))
        else:
            self.refused.append(_told(client, key, call, start, self.now(), error))
        return end

    def abandoned(self, client: int, key: str, call: Call, start: float) -> None:
        """The client went away while it waited."""
        self.ends[f"{_name(call)} abandoned"] += 1
        if not isinstance(call, Read):
            self.operations.append(Operation(client, key, call, None, start, None))

    @property
    def acknowledged_writes(self) -> int:
        return sum(1 for o in self.operations if not isinstance(o.call, Read) and o.result is True)

    def violation(self) -> Violation | None:
        return find_violation(self.operations)

    def save(self, path: Path) -> None:
        """Write one operation a line, so that `load_operations` and people can read it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for operation in sorted(self.operations, key=lambda o: o.start):
                file.write(json.dumps(_record(operation)) + "\n")
        path.with_suffix(".refused").write_text("".join(f"{line}\n" for line in self.refused))


def load_operations(path: Path) -> list[Operation]:
    """Return what `History.save` wrote."""
    return [_operation(json.loads(line)) for line in path.read_text().splitlines()]


def keys_of(operations: Iterable[Operation]) -> set[str]:
    return {operation.key for operation in operations}


def _told(client: int, key: str, call: Call, start: float, end: float, error: SwarmError) -> str:
    return f"[{start:.6f} {end:.6f}] client {client} {key}: {call} -> {type(error).__name__}: {error.message}"


def _name(call: Call) -> str:
    return {Read: "read", Write: "write", CompareAndSet: "cas"}[type(call)]


def _record(operation: Operation) -> dict[str, object]:
    call = operation.call
    return {
        "client": operation.client,
        "key": operation.key,
        "call": [_name(call), *(getattr(call, name) for name in call.__dataclass_fields__)],
        "result": operation.result,
        "start": operation.start,
        "end": operation.end,
    }


def _operation(record: dict[str, object]) -> Operation:
    fields = dict(record)
    name, *arguments = fields.pop("call")  # type: ignore[misc]
    call: Call = {"read": Read, "write": Write, "cas": CompareAndSet}[name](*arguments)
    return Operation(call=call, **fields)  # type: ignore[arg-type]
