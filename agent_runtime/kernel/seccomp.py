"""Compile a seccomp profile to BPF once, and keep the result.

libseccomp needs 10-30 ms for a filter of this size, loading the bytes needs none of that: they are cached in
memory and on disk under a digest of the profile, so that a container pays only for the kernel's part.
"""

import hashlib
import os
import struct
import threading
from pathlib import Path

import msgspec
import pyseccomp

from pyswarm.agent_runtime.kernel.numbers import ARCHITECTURE
from pyswarm.agent_runtime.kernel.seccomp_profile import ENOSYS, EPERM, Profile, profile

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD = 0x20
_JUMP_EQUAL, _JUMP_GREATER = 0x15, 0x25
_RETURN = 0x06
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x3FFFFFFF
_NEWEST_CHECKED = 1024


class SeccompFilters:
    """Compiled filters by capability set; `directory` keeps them across restarts."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._compiled: dict[frozenset[str], bytes] = {}
        # Containers are prepared in threads, and the library is not made for several.
        self._compiling = threading.Lock()

    def filter_for(self, capabilities: frozenset[str]) -> bytes:
        """Return the BPF program for a container with these capabilities, as the kernel takes it."""
        with self._compiling:
            if capabilities not in self._compiled:
                self._compiled[capabilities] = self._load(profile(capabilities, ARCHITECTURE))
            return self._compiled[capabilities]

    def _load(self, wanted: Profile) -> bytes:
        # The library's version matters too: a newer one knows more calls.
        key = hashlib.sha256(msgspec.json.encode([wanted, ARCHITECTURE, newest_known_call()])).hexdigest()
        path = self._directory / f"{key}.bpf"
        try:
            blob = path.read_bytes()
        except FileNotFoundError:
            blob = b""
        if blob and len(blob) % _INSTRUCTION.size == 0:
            return blob
        blob = compile_profile(wanted)
        self._directory.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_bytes(blob)
        aside.rename(path)
        return blob


def compile_profile(wanted: Profile) -> bytes:
    """Return the profile as BPF: a balanced tree over the numbers, preceded by the answer to unknown calls."""
    compiled = pyseccomp.SyscallFilter(pyseccomp.ERRNO(EPERM))
    compiled.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
    for name in wanted.allow:
        _add(compiled, pyseccomp.ALLOW, name)
    for rule in wanted.rules:
        _add(
            compiled,
            pyseccomp.ALLOW,
            rule.call,
            pyseccomp.Arg(rule.argument, pyseccomp.MASKED_EQ, rule.mask, rule.value),
        )
    for name in wanted.not_implemented:
        _add(compiled, pyseccomp.ERRNO(ENOSYS), name)
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b") as exported:
        compiled.export_bpf(exported)
        exported.seek(0)
        return answer_unknown(newest_known_call()) + exported.read()


def _add(compiled: "pyseccomp.SyscallFilter", action: int, name: str, *arguments: "pyseccomp.Arg") -> None:
    try:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except ValueError:
        return  # newer than the library: answered with ENOSYS, see `answer_unknown`
    if number >= 0:  # below: a call of other architectures
        compiled.add_rule(action, number, *arguments)


def newest_known_call() -> int:
    """Return the highest number libseccomp has a name for on this architecture."""
    global _newest
    if _newest is None:
        known = (number for number in range(_NEWEST_CHECKED, 0, -1) if _has_name(number))
        _newest = next(known)
    return _newest


_newest: int | None = None


def _has_name(number: int) -> bool:
    try:
        pyseccomp.resolve_syscall(pyseccomp.system_arch(), number)
    except ValueError:
        return False
    return True


def answer_unknown(newest: int) -> bytes:
    """Return instructions that answer ENOSYS to native calls with a number above `newest` and pass on all others."""
    return b"".join(
        _INSTRUCTION.pack(*fields)
        for fields in (
            (_LOAD_WORD, 0, 0, 4),  # seccomp_data.arch
            (_JUMP_EQUAL, 0, 4, _AUDIT_ARCHITECTURE[ARCHITECTURE]),
            (_LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
            (_JUMP_GREATER, 2, 0, _X32_BIT),
            (_JUMP_GREATER, 0, 1, newest),
            (_RETURN, 0, 0, 0x00050000 | ENOSYS),
        )
    )
