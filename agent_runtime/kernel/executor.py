"""Run a start program in a fresh clone: by the C executor where it was built, else in pure Python.

Both do the same. The parent decodes the program and prepares every argument; the child only makes calls, because
whatever it touches is copied memory and time. It never returns: it ends in execve or, after writing which operation
failed with which errno to the report pipe, in exit_group. `_executor.c` needs a third of the time: its child shares
our memory until execve, which Python cannot bear.

Only for a process with a single thread of Python. Standard library only.
"""

import ctypes
import errno as errors
import os
import struct
from dataclasses import dataclass
from typing import Any

from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.program import (
    EXPECTED,
    FAILURE,
    FIRST_SAVED_SLOT,
    GATE_SLOT,
    HEADER,
    MAGIC,
    NO_SLOT,
    OPERATION,
    POINTER,
    REPORT_SLOT,
    VERSION,
    Kind,
)

try:
    from pyswarm.agent_runtime.kernel import _executor
except ImportError:  # there was no compiler when this was installed, or it is for another architecture
    HAS_NATIVE = False
else:
    HAS_NATIVE = True

_SIGCHLD = 17
# PyDLL keeps the interpreter's lock: the clone must not come back to a lock that a vanished thread holds.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long] * 7


_Call = tuple[int, int, int, list[int], tuple[tuple[int, int], ...], dict[int, int], int]
"""number, save slot, skip, arguments, (place, slot) of arguments that are slots, {errno: skip}, least result"""


class LoadedProgram:
    """A decoded program whose data sits at a fixed address of this process."""

    def __init__(self, encoded: bytes) -> None:
        magic, version, operations, pointers, length, slots, flags = HEADER.unpack_from(encoded)
        if magic != MAGIC or version != VERSION:
            raise ValueError(f"start program of version {version}, this spawner runs {VERSION}")
        self.clone_flags = flags
        self.slot_count = slots
        at = HEADER.size
        table = encoded[at : at + operations * OPERATION.size]
        at += len(table)
        relocations = encoded[at : at + pointers * POINTER.size]
        at += len(relocations)
        self._buffer = ctypes.create_string_buffer(encoded[at : at + length], length or 1)
        base = ctypes.addressof(self._buffer)
        for place, target in POINTER.iter_unpack(relocations):
            struct.pack_into("=Q", self._buffer, place, base + target)
        self.calls = [_decode(fields, base) for fields in OPERATION.iter_unpack(table)]


_NO_KINDS, _NOTHING_EXPECTED = bytes(6), bytes(EXPECTED.size)
_NONE: dict[int, int] = {}


def _decode(fields: tuple[Any, ...], base: int) -> _Call:
    number, save, skip, kinds, least, *arguments, expected = fields
    slots: tuple[tuple[int, int], ...] = ()
    if kinds != _NO_KINDS:
        for place, kind in enumerate(kinds):
            if kind == Kind.DATA:
                arguments[place] += base
            elif kind == Kind.SLOT:
                slots += ((place, arguments[place]),)
    tolerated = _NONE
    if expected != _NOTHING_EXPECTED:
        flat = EXPECTED.unpack(expected)
        tolerated = {errno: over for errno, over in zip(flat[::2], flat[1::2], strict=True) if errno}
    return number, save, skip, arguments, slots, tolerated, least


@dataclass(frozen=True)
class Child:
    """A clone that waits at its gate: write one byte to `gate` to let it go, close it to make it end."""

    pid: int
    gate: int
    report: int


def clone(
    program: bytes,
    descriptors: list[int],
    *,
    into_cgroup: int | None,
    beside: int | None = None,
    native: bool = HAS_NATIVE,
    shares_memory: bool = True,
    last: bool = False,
    others_from: int = 0,
) -> Child:
    """Clone a child that runs an encoded program once its gate is opened; `descriptors` fill the first slots.

    `into_cgroup` is a descriptor of the cgroup v2 directory it is born in: joining one afterwards takes a lock that
    makes the whole machine wait for all its CPUs, some 10 ms.

    `beside` is a pidfd or a pid namespace: the child is born in that pid namespace, which nobody can join later.

    `last`: we clone nobody else, and may have no right to choose our own pid namespace for children again.

    `shares_memory` lets it run in ours until execve, where the executor can: not for one that waits, or outlives us.

    `others_from`: descriptors from this number on are no business of a child that shares no memory and is not born
    beside others: the C executor spares it their copies. 0: there are none.

    `report` yields EOF when the child has reached execve, or a `FAILURE` record. Raises OSError, and ValueError for a
    program of another version.
    """
    if beside is None:
        return _clone(
            program, descriptors, into_cgroup, shares_memory=shares_memory, native=native, others_from=others_from
        )
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _pid_namespace_of_children(beside)
        try:
            # Our memory must be out of reach of those it is born among.
            return _clone(program, descriptors, into_cgroup, shares_memory=False, native=native)
        finally:
            if not last:
                _pid_namespace_of_children(own)
    finally:
        os.close(own)


def keep_from_children() -> None:
    """Let children that get a copy of our memory have only what the C executor needs of it: half of what such a child
    costs is copying page tables and taking them apart. For good: call it when everything is loaded, in a process that
    clones with `native` alone. Raises OSError."""
    _executor.keep_from_children()


def _clone(
    program: bytes,
    descriptors: list[int],
    into_cgroup: int | None,
    *,
    shares_memory: bool,
    native: bool,
    others_from: int = 0,
) -> Child:
    gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    try:
        if native:
            cgroup = -1 if into_cgroup is None else into_cgroup
            pid = _executor.clone(
                program, descriptors, cgroup, gate_read, gate_write, report_write, shares_memory, others_from
            )
        else:
            loaded = LoadedProgram(program)
            pid = _clone_in_python(loaded, descriptors, into_cgroup, gate_read, gate_write, report_write)
    except BaseException:
        os.close(gate_write)
        os.close(report_read)
        raise
    finally:
        os.close(gate_read)
        os.close(report_write)
    return Child(pid, gate_write, report_read)


def _clone_in_python(
    program: LoadedProgram,
    descriptors: list[int],
    into_cgroup: int | None,
    gate_read: int,
    gate_write: int,
    report_write: int,
) -> int:
    slots = [*descriptors, *([-1] * (max(program.slot_count, FIRST_SAVED_SLOT) - len(descriptors)))]
    slots[REPORT_SLOT.index], slots[GATE_SLOT.index] = report_write, gate_read
    failure = ctypes.create_string_buffer(FAILURE.size)
    failure_address = ctypes.addressof(failure)
    one = ctypes.create_string_buffer(1)
    one_address = ctypes.addressof(one)
    # struct clone_args: flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup
    flags = program.clone_flags | (0 if into_cgroup is None else n.CLONE_INTO_CGROUP)
    arguments = ctypes.create_string_buffer(struct.pack("=11Q", flags, 0, 0, 0, _SIGCHLD, *[0] * 5, into_cgroup or 0))
    address = ctypes.addressof(arguments)
    pid = int(_syscall(n.SYS["clone3"], address, 88, 0, 0, 0, 0))
    clone_errno = ctypes.get_errno()
    if pid == 0:
        _syscall(n.SYS["close"], gate_write, 0, 0, 0, 0, 0)
        # The gate opens when the parent has written down who we are. EOF: the parent died, nobody knows of us.
        if _syscall(n.SYS["read"], gate_read, one_address, 1, 0, 0, 0) != 1:
            _syscall(n.SYS["exit_group"], 125, 0, 0, 0, 0, 0)
        index, errno = _run(program.calls, slots)
        FAILURE.pack_into(failure, 0, index, errno)
        _syscall(n.SYS["write"], slots[REPORT_SLOT.index], failure_address, FAILURE.size, 0, 0, 0)
        _syscall(n.SYS["exit_group"], 127, 0, 0, 0, 0, 0)
    if pid < 0:
        raise OSError(clone_errno, f"clone3: {os.strerror(clone_errno)}")
    return pid


def _pid_namespace_of_children(descriptor: int) -> None:
    """Choose the pid namespace of children yet to be cloned. Raises OSError."""
    if _syscall(n.SYS["setns"], descriptor, n.CLONE_NEWPID, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _run(calls: list[_Call], slots: list[int]) -> tuple[int, int]:
    """Make the calls; return (index, errno) of the first that failed. A program that succeeds never comes back."""
    get_errno, syscall = ctypes.get_errno, _syscall
    at, end = 0, len(calls)
    while at < end:
        number, save, skip, arguments, places, tolerated, least = calls[at]
        for place, slot in places:
            arguments[place] = slots[slot]
        result = syscall(number, *arguments)
        if result >= least:
            if save != NO_SLOT:
                slots[save] = result
            at += 1 + skip
            continue
        errno = get_errno() if result < 0 else errors.EPIPE
        if errno not in tolerated:
            return at, errno
        at += 1 + tolerated[errno]
    return end, 0
