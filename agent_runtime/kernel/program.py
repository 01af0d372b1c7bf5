"""A start program: the system calls that turn a fresh clone into a container, as plain data.

Pure. `bundle/compile.py` writes one, the spawner's executor runs it in the child; nobody else needs to know what a
container is. The encoding is made for an interpreter without memory management (ctypes now, C later): fixed-size
operations, one block of data, and a table of the places in that block which hold pointers into it.

    header   u32 magic, version, operation count, pointer count, data length, slot count, clone flags
    op       i32 nr, u16 save slot, u16 skip when it succeeds, 6 x u8 kind, u16 least: a smaller result is a failure,
             EPIPE; 6 x i64 argument, 3 x (u16 errno, u16 skip): an errno that is expected, and how many operations
             to skip then
    pointer  u32 where in the data, u32 to where in the data

Descriptors live in slots: those handed over by the daemon from 0 on, those that operations save from
`FIRST_SAVED_SLOT` on. The two before are the gate, for a child that waits there once more, and the pipe on which it
reports its failure.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from pyswarm.agent_runtime.kernel.numbers import SYS

MAGIC = 0x53575047
VERSION = 2
NO_SLOT = 0xFFFF
FIRST_SAVED_SLOT = 256
"""Above the number of descriptors that one message can carry."""
HEADER = struct.Struct("=7I")
OPERATION = struct.Struct("=iHH6sH6q12s")
EXPECTED = struct.Struct("=6H")
POINTER = struct.Struct("=II")
FAILURE = struct.Struct("=II")
"""What a child that fails reports: index of the operation, errno."""
READY = b"R"
"""What a child says when it has come as far as it may before it is let go on."""


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


REPORT_SLOT = Slot(FIRST_SAVED_SLOT - 1)
"""Holds the pipe on which a failure is reported; a program may move it."""

GATE_SLOT = Slot(FIRST_SAVED_SLOT - 2)
"""Holds the pipe through which whoever cloned a child lets it go on; its end means that nobody will."""

Argument = int | Data | Slot


class Operation(NamedTuple):
    """One system call, encoded. `label` tells people what it was for when it fails, `field` which part of the
    config.json asked for it."""

    call: str
    label: str
    encoded: bytes
    field: str = ""


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
        body = [operation.encoded for operation in self.operations]
        relocations = [POINTER.pack(*pair) for pair in self.pointers]
        return b"".join([head, *body, *relocations, self.data])


_NO_KINDS, _NOTHING_EXPECTED = bytes(6), bytes(EXPECTED.size)


def _encode(
    call: str, arguments: tuple[Argument, ...], save: int, skip: int, tolerated: tuple[tuple[int, int], ...], least: int
) -> bytes:
    kinds, values = _NO_KINDS, [0, 0, 0, 0, 0, 0]
    for place, argument in enumerate(arguments):
        if isinstance(argument, int):
            values[place] = argument
        else:
            kind, value = (Kind.DATA, argument.offset) if isinstance(argument, Data) else (Kind.SLOT, argument.index)
            kinds = kinds[:place] + bytes([kind]) + kinds[place + 1 :]
            values[place] = value
    expected = _NOTHING_EXPECTED
    if tolerated:
        flat = [number for pair in tolerated for number in pair]
        expected = EXPECTED.pack(*flat, *[0] * (6 - len(flat)))
    return OPERATION.pack(SYS[call], save, skip, kinds, least, *values, expected)


class Writer:
    """Builds a Program: hands out slots, lays out data, appends operations."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._data = bytearray()
        self._pointers: list[tuple[int, int]] = []
        self._known: dict[bytes, Data] = {}
        self._slots = FIRST_SAVED_SLOT
        self.clone_flags = 0
        self.field = ""
        """The part of the config.json that the next operations come from."""

    def copy(self) -> "Writer":
        """Return a writer that goes on from here, so that a common beginning is written once."""
        other = Writer()
        other._operations = list(self._operations)
        other._data = bytearray(self._data)
        other._pointers = list(self._pointers)
        other._known = dict(self._known)
        other._slots = self._slots
        other.clone_flags = self.clone_flags
        return other

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
        least: int = 0,
    ) -> None:
        """Append one call. `skip` jumps over that many operations when it succeeds; `tolerated` lists up to three
        (errno, skip) pairs that are no failure. A result below `least` is one: EPIPE."""
        assert len(tolerated) <= 3
        slot = NO_SLOT if save is None else save.index
        encoded = _encode(name, arguments, slot, skip, tolerated, least)
        self._operations.append(Operation(name, label, encoded, self.field))

    def finish(self) -> Program:
        return Program(self.clone_flags, tuple(self._operations), bytes(self._data), tuple(self._pointers), self._slots)


def open_how(flags: int, resolve: int, mode: int = 0) -> bytes:
    """Return the kernel's `struct open_how`."""
    return struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
