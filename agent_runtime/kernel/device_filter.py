"""Device rules in cgroup v2: an eBPF program that the kernel asks about every use of a device.

Assembled by hand, a few instructions a rule. The last rule that matches decides, as in a v1 `devices` hierarchy; what
no rule matches is denied.
"""

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent_runtime.kernel.syscalls import syscall

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_WORD, _MOVE, _MOVE_REGISTER, _EXIT = 0x61, 0xB7, 0xBF, 0x95
_AND, _SHIFT_RIGHT = 0x57, 0x77
_JUMP_IF_OTHER, _JUMP_IF_ZERO = 0x55, 0x15
_TYPE, _ACCESS, _MAJOR, _MINOR, _SCRATCH = 2, 3, 4, 5, 6
"""Registers."""
_TYPES = {"b": 1, "c": 2}
_ACCESSES = {"m": 1, "r": 2, "w": 4}
_PROG_LOAD, _PROG_ATTACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 13, 16
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 2, 4
_MOST_PROGRAMS = 64


@dataclass(frozen=True)
class Rule:
    """`type` is a, b or c; None stands for every number."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


def assemble(rules: Sequence[Rule]) -> bytes:
    """Return the program. Pure."""
    code = [
        _INSTRUCTION.pack(_LOAD_WORD, 1 << 4 | _TYPE, 0, 0),
        _INSTRUCTION.pack(_MOVE_REGISTER, _TYPE << 4 | _ACCESS, 0, 0),
        _INSTRUCTION.pack(_AND, _TYPE, 0, 0xFFFF),
        _INSTRUCTION.pack(_SHIFT_RIGHT, _ACCESS, 0, 16),
        _INSTRUCTION.pack(_LOAD_WORD, 1 << 4 | _MAJOR, 4, 0),
        _INSTRUCTION.pack(_LOAD_WORD, 1 << 4 | _MINOR, 8, 0),
    ]
    for rule in reversed(rules):
        code += _rule(rule)
        if rule.type == "a" and rule.major is None and rule.minor is None and set(rule.access) == set("rwm"):
            return b"".join(code)  # nothing before it can be reached
    return b"".join([*code, *_answer(allow=False)])


def _rule(rule: Rule) -> list[bytes]:
    """Return instructions that answer if the rule matches, else fall through."""
    answer = _answer(allow=rule.allow)
    tests: list[tuple[int, int, int]] = []  # (jump, register, value): go on with the next rule
    if rule.type != "a":
        tests.append((_JUMP_IF_OTHER, _TYPE, _TYPES[rule.type]))
    if rule.major is not None:
        tests.append((_JUMP_IF_OTHER, _MAJOR, rule.major))
    if rule.minor is not None:
        tests.append((_JUMP_IF_OTHER, _MINOR, rule.minor))
    access = sum(_ACCESSES[letter] for letter in set(rule.access))
    by_access: list[bytes] = []
    if access != 7:
        # An allowance must cover all that is asked for, a denial any of it.
        mask, jump = (~access & 7, _JUMP_IF_OTHER) if rule.allow else (access, _JUMP_IF_ZERO)
        by_access = [
            _INSTRUCTION.pack(_MOVE_REGISTER, _ACCESS << 4 | _SCRATCH, 0, 0),
            _INSTRUCTION.pack(_AND, _SCRATCH, 0, mask),
            _INSTRUCTION.pack(jump, _SCRATCH, len(answer), 0),
        ]
    rest = len(by_access) + len(answer)
    compared = [
        _INSTRUCTION.pack(jump, register, len(tests) - 1 - at + rest, value)
        for at, (jump, register, value) in enumerate(tests)
    ]
    return [*compared, *by_access, *answer]


def _answer(*, allow: bool) -> list[bytes]:
    return [_INSTRUCTION.pack(_MOVE, 0, 0, int(allow)), _INSTRUCTION.pack(_EXIT, 0, 0, 0)]


def attach(cgroup: Path, rules: Sequence[Rule]) -> None:
    """Put the rules in force for a cgroup v2 directory, in place of those it has. Raises OSError."""
    program = _load(assemble(rules))
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(folder)
        if len(before) == 1:
            old = _bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", before[0], 0, 0))
            try:
                flags = _ALLOW_MULTI | _REPLACE
                _bpf(_PROG_ATTACH, struct.pack("=IIIII", folder, program, _CGROUP_DEVICE, flags, old))
            finally:
                os.close(old)
        else:
            _bpf(_PROG_ATTACH, struct.pack("=IIIII", folder, program, _CGROUP_DEVICE, _ALLOW_MULTI, 0))
    finally:
        os.close(folder)
        os.close(program)


def _load(code: bytes) -> int:
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16sI", _CGROUP_DEVICE_PROGRAM, len(code) // _INSTRUCTION.size, ctypes.addressof(instructions),
        ctypes.addressof(licence), 0, 0, 0, 0, 0, b"devices", 0,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, attributes)


def _attached(folder: int) -> list[int]:
    """Return the ids of the device programs of a cgroup itself."""
    ids = ctypes.create_string_buffer(4 * _MOST_PROGRAMS)
    query = ctypes.create_string_buffer(
        struct.pack("=IIIIQII", folder, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS, 0)
    )
    syscall("bpf", _PROG_QUERY, ctypes.addressof(query), 32)
    (count,) = struct.unpack_from("=I", query, 24)
    return list(struct.unpack_from(f"={count}I", ids))


def _bpf(command: int, attributes: bytes) -> int:
    return syscall("bpf", command, attributes, len(attributes))
