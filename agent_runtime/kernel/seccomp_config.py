"""Compile the `linux.seccomp` object of a config.json to BPF, and keep the result under a digest of it.

As runc does, names the library does not know are passed over, and calls newer than it knows answer ENOSYS where the
default is an error, so that C libraries fall back instead of failing.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pyseccomp

from pyswarm.agent_runtime.kernel.numbers import ARCHITECTURE
from pyswarm.agent_runtime.kernel.seccomp import answer_unknown, newest_known_call

_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE, "SCMP_CMP_LT": pyseccomp.LT, "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ, "SCMP_CMP_GE": pyseccomp.GE, "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}  # fmt: skip
_NATIVE = {"x86_64": "X86_64", "aarch64": "AARCH64"}
_EPERM = 1
_OPTIMISED_FROM_RULES = 32
"""A balanced tree pays from here on."""


def filter_of(seccomp: Any, cache: Path) -> bytes:
    """Return the BPF program of a `spec_linux.Seccomp`. Raises ValueError naming what the library refuses, OSError."""
    key = hashlib.sha256(msgspec.json.encode([seccomp, ARCHITECTURE, newest_known_call()])).hexdigest()
    path = cache / f"{key}.bpf"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    code = compile_config(seccomp)
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_bytes(code)
    aside.rename(path)
    return code


def compile_config(seccomp: Any) -> bytes:
    """Return the BPF program of a `spec_linux.Seccomp`. Raises ValueError naming what the library refuses."""
    default = _action(seccomp.default_action, seccomp.default_errno_ret)
    compiled = pyseccomp.SyscallFilter(default)
    if len(seccomp.syscalls) and sum(len(rule.names) for rule in seccomp.syscalls) >= _OPTIMISED_FROM_RULES:
        compiled.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
    for name in seccomp.architectures:
        _add_architecture(compiled, name.removeprefix("SCMP_ARCH_"))
    for index, rule in enumerate(seccomp.syscalls):
        action = _action(rule.action, rule.errno_ret)
        if action == default:
            continue
        for name in rule.names:
            try:
                _add(compiled, action, name, rule.args)
            except (OSError, RuntimeError) as error:
                raise ValueError(f"syscalls[{index}]: the rule for {name} is refused: {error}") from error
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "w+b") as exported:
        compiled.export_bpf(exported)
        exported.seek(0)
        code = exported.read()
    if seccomp.default_action != "SCMP_ACT_ERRNO":
        return code
    return answer_unknown(newest_known_call()) + code


def wants_listener(seccomp: Any) -> bool:
    """Return whether some call is to be answered by a program outside."""
    return any(rule.action == "SCMP_ACT_NOTIFY" for rule in seccomp.syscalls)


def _action(name: str, errno_return: int | None) -> int:
    number = _EPERM if errno_return is None else errno_return
    actions: dict[str, int] = {
        "SCMP_ACT_KILL": pyseccomp.KILL, "SCMP_ACT_KILL_THREAD": pyseccomp.KILL,
        "SCMP_ACT_KILL_PROCESS": pyseccomp.KILL_PROCESS, "SCMP_ACT_TRAP": pyseccomp.TRAP,
        "SCMP_ACT_ERRNO": pyseccomp.ERRNO(number), "SCMP_ACT_TRACE": pyseccomp.TRACE(number),
        "SCMP_ACT_ALLOW": pyseccomp.ALLOW, "SCMP_ACT_LOG": pyseccomp.LOG, "SCMP_ACT_NOTIFY": pyseccomp.NOTIFY,
    }  # fmt: skip
    return actions[name]


def _add_architecture(compiled: "pyseccomp.SyscallFilter", name: str) -> None:
    architecture = getattr(pyseccomp.Arch, name, None)
    if architecture is None or name == _NATIVE[ARCHITECTURE]:
        return  # the native one is there; what the library does not know cannot make calls here either
    try:
        compiled.add_arch(architecture)
    except (FileExistsError, OSError) as error:
        if not isinstance(error, FileExistsError):
            raise ValueError(f"architectures: {name} is refused: {error}") from error


def _add(compiled: "pyseccomp.SyscallFilter", action: int, name: str, arguments: Any) -> None:
    try:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except ValueError:
        return
    if number == -1:  # the library's word for a name it does not know; other negative ones are of other architectures
        return
    conditions = [
        pyseccomp.Arg(each.index, _OPERATORS[each.op], each.value, each.value_two)
        if each.op == "SCMP_CMP_MASKED_EQ"
        else pyseccomp.Arg(each.index, _OPERATORS[each.op], each.value)
        for each in arguments
    ]
    # Two conditions on one argument stand for "or", as in runc: each is a rule of its own.
    if len({each.index for each in arguments}) < len(arguments):
        for condition in conditions:
            compiled.add_rule(action, number, condition)
    else:
        compiled.add_rule(action, number, *conditions)
