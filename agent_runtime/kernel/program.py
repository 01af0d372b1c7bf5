"""A start program: the system calls that turn a fresh clone into a container, as plain data.

Pure. `bundle/compile.py` writes one, the spawner's executor runs it in the child; nobody else needs to know what a
container is. The encoding is made for an interpreter without memory management (ctypes now, C later): fixed-size
operations, one block of data, and a table of the places in that block which hold pointers into it.

    header   u32 magic, version, operation count, pointer count, data length, slot count, clone flags
    op       i32 nr, u16 save slot, u16 skip when it succeeds, 6 x u8 kind, u16 pad, 6 x i64 argument,
             3 x (u16 errno, u16 skip): an errno that is expected, and how many operations to skip then
    pointer  u32 where in the data, u32 to where in the data

Descriptors live in slots: first those handed over by the daemon, in order, then those that operations save.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pyswarm.agent_runtime.kernel.numbers import SYS

MAGIC = 0x53575047
VERSION = 1
NO_SLOT = 0xFFFF
HEADER = struct.Struct("=7I")
OPERATION = struct.Struct("=iHH6BH6q6H")
POINTER = struct.Struct("=II")
FAILURE = struct.Struct("=II")
"""What a child that fails reports: index of the operation, errno."""


class Kind(IntEnum):
    """What an argument of an operation is."""

    NUMBER = 0
    DATA = 1
    SLOT = 2


@dataclass(frozen=True)
class Data:
    """An argument that points into the data block."""

    offset: int


@dataclass(frozen=True)
class Slot:
    """An argument that is the descriptor in this slot."""

    index: int


Argument = int | Data | Slot


@dataclass(frozen=True)
class Operation:
    """One system call. `label` tells people what it was for when it fails."""

    call: str
    arguments: tuple[Argument, ...]
    label: str
    save: int = NO_SLOT
    skip: int = 0
    tolerated: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Program:
    """Operations and their data, ready to be encoded; `labels` name what each operation does."""

    clone_flags: int
    operations: tuple[Operation, ...]
    data: bytes
    pointers: tuple[tuple[int, int], ...]
    slot_count: int

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(operation.label for operation in self.operations)

    def encode(self) -> bytes:
        head = HEADER.pack(
            MAGIC, VERSION, len(self.operations), len(self.pointers), len(self.data), self.slot_count, self.clone_flags
        )
        body = [_encode(operation) for operation in self.operations]
        relocations = [POINTER.pack(*pair) for pair in self.pointers]
        return b"".join([head, *body, *relocations, self.data])


def _encode(operation: Operation) -> bytes:
    kinds, values = [Kind.NUMBER] * 6, [0] * 6
    for place, argument in enumerate(operation.arguments):
        if isinstance(argument, Data):
            kinds[place], values[place] = Kind.DATA, argument.offset
        elif isinstance(argument, Slot):
            kinds[place], values[place] = Kind.SLOT, argument.index
        else:
            values[place] = argument
    tolerated = [*operation.tolerated, (0, 0), (0, 0), (0, 0)][:3]
    flat = [number for pair in tolerated for number in pair]
    return OPERATION.pack(SYS[operation.call], operation.save, operation.skip, *kinds, 0, *values, *flat)


class Writer:
    """Builds a Program: hands out slots, lays out data, appends operations."""

    def __init__(self, handed_over: int) -> None:
        self._operations: list[Operation] = []
        self._data = bytearray()
        self._pointers: list[tuple[int, int]] = []
        self._known: dict[bytes, Data] = {}
        self._slots = handed_over
        self.clone_flags = 0

    def new_slot(self) -> Slot:
        self._slots += 1
        return Slot(self._slots - 1)

    def text(self, value: str | bytes) -> Data:
        """Place a NUL-terminated string; equal strings share their place."""
        raw = (value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value) + b"\0"
        if raw not in self._known:
            self._known[raw] = self.block(raw)
        return self._known[raw]

    def block(self, value: bytes) -> Data:
        """Place bytes, aligned to 8."""
        self._data.extend(bytes(-len(self._data) % 8))
        self._data.extend(value)
        return Data(len(self._data) - len(value))

    def strings(self, values: Sequence[str]) -> Data:
        """Place a NULL-terminated array of strings, as argv and envp are."""
        places = [self.text(value) for value in values]
        array = self.block(bytes(8 * (len(places) + 1)))
        self._pointers.extend((array.offset + 8 * at, place.offset) for at, place in enumerate(places))
        return array

    def pointer(self, at: Data, inside: int, to: Data) -> None:
        """Make the eight bytes `inside` the block `at` point to the block `to`."""
        self._pointers.append((at.offset + inside, to.offset))

    def call(
        self,
        name: str,
        *arguments: Argument,
        label: str,
        save: Slot | None = None,
        skip: int = 0,
        tolerated: tuple[tuple[int, int], ...] = (),
    ) -> None:
        """Append one call. `skip` jumps over that many operations when it succeeds; `tolerated` lists up to three
        (errno, skip) pairs that are no failure."""
        assert len(tolerated) <= 3
        slot = NO_SLOT if save is None else save.index
        self._operations.append(Operation(name, arguments, label, slot, skip, tolerated))

    def finish(self) -> Program:
        return Program(self.clone_flags, tuple(self._operations), bytes(self._data), tuple(self._pointers), self._slots)


def open_how(flags: int, resolve: int, mode: int = 0) -> bytes:
    """Return the kernel's `struct open_how`."""
    return struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
