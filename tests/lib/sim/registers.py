"""What the clients of a simulated group do: registers over the engine itself, or conditional writes to the real store.

Both are the same registers to a client and to the judge (linearizability.py): read, write, compare and set. What is
under test differs: `Registers` is a toy state machine that is proposed to directly; `StoreRegisters` keeps each
register in a config object and goes through the store's writer, which retries and must take effect exactly once.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from lib.linearizability import Call, CompareAndSet, Read, Value, Write
from lib.sim.host import Process

from pyswarm.manager.store.changes import Create, Update
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.model.objects import Config
from pyswarm.proto.model.spec import ConfigSpec

TIMEOUT_SECONDS = 1.5


class Registers:
    """Implements `StateMachine`: keys and values, and the fingerprints of all that was applied."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def apply(self, _index: int, payload: bytes) -> bytes:
        _, key, expected, value = msgspec.msgpack.decode(payload)
        is_met = expected is None or self.values.get(key) == (expected or None)
        if is_met:
            self.values[key] = value
        return b"1" if is_met else b"0"

    def snapshot(self) -> Iterable[bytes]:
        # Taken now, written later: what is applied meanwhile must not be in it.
        return iter([msgspec.msgpack.encode(item) for item in sorted(self.values.items())])

    def restore(self, _index: int, pieces: Iterable[bytes]) -> None:
        self.values = dict(msgspec.msgpack.decode(piece) for piece in pieces)

    def value(self, key: str) -> Value:
        return self.values.get(key)

    def digest(self) -> str:
        return repr(sorted(self.values.items()))


async def call_registers(process: Process, number: int, key: str, call: Call) -> tuple[Value | bool, int, bytes]:
    """Return (result, index, payload): index and payload are those of a write that took effect, else 0 and b""."""
    machine = process.machine.machine
    assert isinstance(machine, Registers)
    if isinstance(call, Read):
        await process.engine.read_barrier(timeout_seconds=TIMEOUT_SECONDS)
        return machine.value(key), 0, b""
    payload = payload_of(number, key, call)
    index, result = await process.engine.propose(payload, timeout_seconds=TIMEOUT_SECONDS)
    return (True if isinstance(call, Write) else result == b"1"), index, payload


def payload_of(number: int, key: str, call: Call) -> bytes:
    assert not isinstance(call, Read)
    # Nobody expects a register that was never written: that is an empty text here.
    expected = (call.expected or "") if isinstance(call, CompareAndSet) else None
    return msgspec.msgpack.encode((number, key, expected, call.value))


class StoreRegisters(Store):
    """The real store; a register is a config and its text the config's name."""

    def value(self, key: str) -> Value:
        found = self.view.get("config", key)
        return found.spec.labels["value"] if isinstance(found, Config) else None


def writer_of(process: Process) -> Writer:
    """Return the one writer of a process."""
    known: Writer | None = getattr(process, "writer", None)
    if known is None:
        store = process.machine.machine
        assert isinstance(store, StoreRegisters)
        entropy = SeededEntropy(process.host.world.rng.getrandbits(32))
        known = Writer(process.engine, store, clock=process.host, entropy=entropy)
        process.writer = known  # type: ignore[attr-defined]
    return known


async def call_store(process: Process, _number: int, key: str, call: Call) -> tuple[Value | bool, int, bytes]:
    """As `call_registers`; a write without a condition is the store's `update`, which decides again on conflict."""
    store = process.machine.machine
    assert isinstance(store, StoreRegisters)
    if isinstance(call, Read):
        await process.engine.read_barrier(timeout_seconds=TIMEOUT_SECONDS)
        return store.value(key), 0, b""
    present: Any = store.view.get("config", key)
    if isinstance(call, CompareAndSet) and store.value(key) != call.expected:
        # The view may be old. A condition is refused only by what is certainly the present state.
        await process.engine.read_barrier(timeout_seconds=TIMEOUT_SECONDS)
        present = store.view.get("config", key)
        if store.value(key) != call.expected:
            return False, 0, b""
    spec = ConfigSpec(name=key, labels={"value": str(call.value)})
    change = Create(Config(key, spec=spec)) if present is None else Update(msgspec.structs.replace(present, spec=spec))
    try:
        await writer_of(process).write([change], timeout_seconds=TIMEOUT_SECONDS)
    except Conflict:
        if isinstance(call, CompareAndSet):
            return False, 0, b""
        raise
    return True, 0, b""
