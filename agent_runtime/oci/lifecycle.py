"""`start`, `kill`, `delete`, `pause`, `resume`: what moves a container of the command line through its life."""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from pyswarm.agent_runtime.kernel.process import open_pidfd
from pyswarm.agent_runtime.kernel.program import FAILURE
from pyswarm.agent_runtime.oci import hooks
from pyswarm.agent_runtime.oci.abandoned import remove_cgroup
from pyswarm.agent_runtime.oci.cgroup import ContainerCgroup
from pyswarm.agent_runtime.oci.launch import explain_report
from pyswarm.agent_runtime.oci.state import Container, Root
from pyswarm.agent_runtime.oci.status import CREATED, PAUSED, RUNNING, STOPPED, oci_state, status_of
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument

_DEATH_SECONDS = 10.0


def refuse_unless(status: str, allowed: tuple[str, ...], verb: str, container_id: str) -> None:
    if status not in allowed:
        remedy = {CREATED: "Start it first.", PAUSED: "Resume it first.", STOPPED: "Delete it and create it again."}
        raise FailedPrecondition(
            f"cannot {verb} container {container_id}: it is {status}",
            remedy=remedy.get(status, f"It has to be {' or '.join(allowed)}."),
        )


def start(root: Root, container: Container, warn: Callable[[str], None]) -> None:
    """Let a created container execute its program. Raises SwarmError naming what failed."""
    refuse_unless(status_of(root, container), (CREATED,), "start", container.id)
    spec = root.config(container.id)
    if spec.hooks.start_container:
        pidfd = open_pidfd(container.process)
        if pidfd is not None:
            try:
                state = oci_state(container, CREATED)
                hooks.run_hooks("startContainer", spec.hooks.start_container, state, inside=pidfd)
            except hooks.HookFailed:
                _destroy(root, container, warn)
                raise
            finally:
                os.close(pidfd)
    report = os.open(root.report(container.id), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        go = os.open(root.go(container.id), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.unlink(root.go(container.id))
        os.write(go, b"1")
        os.close(go)
        poll = select.poll()
        poll.register(report, select.POLLIN)
        poll.poll()  # its words, or the end: it has reached execve
        said = os.read(report, FAILURE.size)
    finally:
        os.close(report)
    explain_report(said, container.steps, spec.process, first=container.first_step)
    hooks.run_and_warn("poststart", spec.hooks.poststart, oci_state(container, RUNNING), warn)


def kill(root: Root, container: Container, number: int, *, everyone: bool) -> None:
    """Send a signal to the first process, or to every process of the container."""
    status = status_of(root, container)
    if everyone:
        for pid in ContainerCgroup.of(container.cgroup).processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if status == STOPPED:
            return  # the first process of a shared pid namespace takes nobody along
    if everyone and container.cgroup:
        pass  # they have it
    elif status == STOPPED:
        raise FailedPrecondition(
            f"cannot kill container {container.id}: it is {STOPPED}: process already finished",
            remedy=f"Delete it: `delete {container.id}`.",
        )
    else:
        pidfd = open_pidfd(container.process)
        if pidfd is not None:
            try:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)
    if status == PAUSED and number == signal.SIGKILL:
        # In a v1 hierarchy a frozen process does not die before it is thawed.
        ContainerCgroup.of(container.cgroup).freeze(frozen=False)


def signal_number(text: str) -> int:
    """Return the number of `9`, `KILL` or `SIGKILL`."""
    if text.isdecimal() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text.upper()
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        if name.removeprefix("SIG").startswith("RTMIN+") and name.partition("+")[2].isdecimal():
            return int(signal.SIGRTMIN) + int(name.partition("+")[2])
        raise InvalidArgument(f"there is no signal {text!r}", remedy="Give a number, or a name such as TERM.") from None


def delete(root: Root, container: Container, warn: Callable[[str], None], *, force: bool) -> None:
    """Remove a stopped container; `force` kills it first."""
    status = status_of(root, container)
    if status != STOPPED and not force:
        raise FailedPrecondition(
            f"cannot delete container {container.id}: it is not stopped, but {status}",
            remedy=f"Stop it first, or use `delete --force {container.id}`.",
        )
    _destroy(root, container, warn)


def _destroy(root: Root, container: Container, warn: Callable[[str], None]) -> None:
    cgroup = ContainerCgroup.of(container.cgroup)
    if status_of(root, container) != STOPPED:
        kill(root, container, signal.SIGKILL, everyone=False)
        _wait_for_death(container)
    remove_cgroup(cgroup)
    spec = root.config(container.id)
    root.forget(container.id)
    hooks.run_and_warn("poststop", spec.hooks.poststop, oci_state(container, STOPPED), warn)


def _wait_for_death(container: Container) -> None:
    pidfd = open_pidfd(container.process)
    if pidfd is None:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_DEATH_SECONDS * 1000):
            raise FailedPrecondition(
                f"container {container.id} does not die", remedy="See what its processes wait for: `ps`."
            )
    finally:
        os.close(pidfd)


def pause(root: Root, container: Container) -> None:
    refuse_unless(status_of(root, container), (RUNNING, CREATED), "pause", container.id)
    ContainerCgroup.needed(container.cgroup, "pause it").freeze(frozen=True)


def resume(root: Root, container: Container) -> None:
    refuse_unless(status_of(root, container), (PAUSED,), "resume", container.id)
    ContainerCgroup.of(container.cgroup).freeze(frozen=False)


def wait_and_forward(pid: int) -> int:
    """Wait for our child's end, passing signals on to it meanwhile; returns its wait status."""
    forwarded = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

    def forward(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in forwarded:
        signal.signal(number, forward)
    while True:
        found, status = os.waitpid(-1, 0)  # what was left to us is reaped as well
        if found == pid:
            return status
