"""Run the hooks of a config.json: programs that the caller wants run at points of a container's life.

Each gets the container's state on its standard input, only the environment it names, and its time. Those for the
container run in its namespaces, the others where we are.
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pyswarm.agent_runtime.bundle.runtime_spec import Hook
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel import syscalls
from pyswarm.proto.errors import FailedPrecondition

_FAILED = 125


class HookFailed(FailedPrecondition):
    code = "hook-failed"
    remedy = "See what the hook says, or remove it from the bundle's config.json."


def run_hooks(kind: str, hooks: Sequence[Hook], state: Mapping[str, Any], *, inside: int | None = None) -> None:
    """Run hooks one after the other. `inside` is a pidfd: in the namespaces of that process. Raises HookFailed."""
    for index, hook in enumerate(hooks):
        name = f"hooks.{kind}[{index}]"
        if inside is None:
            _run(name, hook, state)
        else:
            in_namespaces(inside, lambda name=name, hook=hook: _run(name, hook, state))  # type: ignore[misc]


def _run(name: str, hook: Hook, state: Mapping[str, Any]) -> None:
    environment = dict(line.split("=", 1) for line in hook.env if "=" in line)
    command = list(hook.args) or [hook.path]
    try:
        done = subprocess.run(
            command, executable=hook.path, env=environment, input=msgspec.json.encode(state), timeout=hook.timeout,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise HookFailed(f"{name}: {hook.path} did not end within {hook.timeout} s") from None
    except OSError as error:
        raise HookFailed(f"{name}: cannot execute {hook.path}: {os.strerror(error.errno or 0)}") from error
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()[-2000:]
        raise HookFailed(f"{name}: {hook.path} ended with {done.returncode}: {said}")


def in_namespaces(pidfd: int, work: Callable[[], None]) -> None:
    """Do `work` in a child that has joined all namespaces of a process, below its root. Raises HookFailed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        code = _FAILED
        try:
            os.close(read)
            # Nobody in there may look into us.
            syscalls.prctl(n.PR_SET_DUMPABLE, 0)
            flags = (
                n.CLONE_NEWNS | n.CLONE_NEWUTS | n.CLONE_NEWIPC | n.CLONE_NEWNET | n.CLONE_NEWPID | n.CLONE_NEWCGROUP
            )
            syscalls.syscall("setns", pidfd, flags)
            os.chdir("/")
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - a child must not return into its parent's code
            os.write(write, str(getattr(error, "message", error)).encode()[:4000])
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise HookFailed(said or f"the helper of a hook ended with {os.waitstatus_to_exitcode(status)}")


def run_and_warn(kind: str, hooks: Sequence[Hook], state: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Run hooks whose failure changes nothing any more: it is only told."""
    for index, hook in enumerate(hooks):
        try:
            _run(f"hooks.{kind}[{index}]", hook, state)
        except HookFailed as error:
            warn(error.message)
