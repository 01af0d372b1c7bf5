"""What both executors must do, each case in a process of its own: `python executor_cases.py CASE native|python`.

Little is imported, as in the spawner.
"""

import errno
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from pyswarm.agent_runtime.kernel import executor
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.executor import Child
from pyswarm.agent_runtime.kernel.program import FAILURE, GATE_SLOT, HEADER, READY, REPORT_SLOT, Program, Slot, Writer

NATIVE = sys.argv[2:] == ["native"]
CASES: dict[str, Callable[[], None]] = {}


def case(function: Callable[[], None]) -> Callable[[], None]:
    CASES[function.__name__] = function
    return function


def clone(program: Program, *descriptors: int, beside: int | None = None) -> Child:
    return executor.clone(program.encode(), [*descriptors], into_cgroup=None, beside=beside, native=NATIVE)


def let_go(child: Child) -> bytes:
    """Open the gate; return what is reported."""
    os.write(child.gate, b"1")
    os.close(child.gate)
    return reported(child)


def reported(child: Child) -> bytes:
    with os.fdopen(child.report, "rb") as report:
        return report.read()


def ended(child: Child) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


def shell(w: Writer, script: str, *environment: str) -> Program:
    w.call("execve", w.text("/bin/sh"), w.strings(["sh", "-c", script]), w.strings(environment), label="execute")
    return w.finish()


@case
def it_executes_a_program_with_its_arguments_environment_and_descriptors() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    w = Writer()
    w.call("dup3", Slot(0), 1, 0, label="stdout")
    child = clone(shell(w, "echo $NAME; exit 7", "NAME=value"), writer)
    os.close(writer)
    assert let_go(child) == b""
    assert os.read(reader, 100) == b"value\n"
    assert ended(child) == 7


@case
def a_failure_is_reported_with_the_operation_and_its_errno() -> None:
    w = Writer()
    w.call("umask", 0, label="fine")
    w.call("chdir", w.text("/nowhere"), label="fails")
    child = clone(shell(w, "exit 0"))
    assert FAILURE.unpack(let_go(child)) == (1, errno.ENOENT)
    assert ended(child) == 127


@case
def a_program_that_ends_without_execve_reports_an_operation_too_many() -> None:
    w = Writer()
    w.call("umask", 0, label="fine")
    child = clone(w.finish())
    assert FAILURE.unpack(let_go(child)) == (1, 0)
    assert ended(child) == 127


@case
def a_failure_is_reported_where_the_program_moved_the_report_to() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    w = Writer()
    w.call("dup3", REPORT_SLOT, 99, os.O_CLOEXEC, label="move", save=REPORT_SLOT)
    w.call("dup3", Slot(0), 98, os.O_CLOEXEC, label="keep")
    w.call("close_range", 3, 97, 0, label="close the others")
    w.call("chdir", w.text("/nowhere"), label="fails")
    child = clone(w.finish(), writer)
    assert FAILURE.unpack(let_go(child)) == (3, errno.ENOENT)
    os.close(reader)


@case
def results_are_saved_successes_skip_and_expected_errors_are_none() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    w = Writer()
    directory = w.new_slot()
    missing = ((errno.EACCES, 9), (errno.ENOENT, 1))
    w.call("chdir", w.text("/nowhere"), label="expected", tolerated=missing)
    w.call("chdir", w.text("/nowhere"), label="skipped by the error")
    w.call("openat", n.AT_FDCWD, w.text("/usr"), os.O_RDONLY, 0, label="open", save=directory, skip=1)
    w.call("chdir", w.text("/nowhere"), label="skipped by the success")
    w.call("fchdir", directory, label="use what was saved")
    w.call("dup3", Slot(0), 1, 0, label="stdout")
    assert let_go(clone(shell(w, "pwd"), writer)) == b""
    assert os.read(reader, 100) == b"/usr\n"


@case
def nothing_happens_before_the_gate_is_opened_nor_when_it_is_closed() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    w = Writer()
    w.call("dup3", Slot(0), 1, 0, label="stdout")
    child = clone(shell(w, "echo ran"), writer)
    os.close(writer)
    assert select.select([reader, child.report], [], [], 0.1)[0] == []
    os.close(child.gate)
    assert reported(child) == b""
    assert ended(child) == 125
    assert os.read(reader, 100) == b""


def waiting_once_more(*descriptors: int, others_from: int = 0) -> Child:
    w = Writer()
    w.call("write", REPORT_SLOT, w.block(READY), 1, label="say so")
    w.call("read", GATE_SLOT, w.block(bytes(8)), 1, label="wait", least=1)
    child = executor.clone(
        shell(w, "exit 4").encode(),
        [*descriptors],
        into_cgroup=None,
        native=NATIVE,
        shares_memory=False,
        others_from=others_from,
    )
    os.write(child.gate, b"1")
    assert os.read(child.report, 8) == READY
    return child


@case
def one_that_waits_at_its_gate_once_more_goes_when_it_is_opened() -> None:
    child = waiting_once_more()
    assert let_go(child) == b""
    assert ended(child) == 4


@case
def one_that_waits_at_its_gate_once_more_ends_when_it_is_closed() -> None:
    child = waiting_once_more()
    os.close(child.gate)
    assert FAILURE.unpack(reported(child)) == (1, errno.EPIPE)
    assert ended(child) == 127


@case
def one_with_a_copy_of_our_memory_gives_it_back() -> None:
    child = waiting_once_more()
    with open(f"/proc/{child.pid}/smaps_rollup") as rollup:
        held = next(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))
    assert not NATIVE or held < 200, held
    assert let_go(child) == b""
    assert ended(child) == 4


@case
def what_is_kept_from_children_is_not_copied_for_them() -> None:
    if not NATIVE:
        return
    assert copied_kib() > 1000
    executor.keep_from_children()
    assert copied_kib() < 300
    for _ in range(3):
        child = waiting_once_more()
        assert len([bytes(1000) for _ in range(10_000)]) == 10_000  # ours is whole, and grows
        assert let_go(child) == b""
        assert ended(child) == 4


@case
def descriptors_of_others_are_not_copied_for_one_that_waits() -> None:
    others_from = 100
    reader, writer = os.pipe2(os.O_CLOEXEC)
    other = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, others_from)
    for given, has_others in ((writer, not NATIVE), (other, True)):  # all are copied to one that needs one of them
        child = waiting_once_more(given, others_from=others_from)
        opened = {int(name) for name in os.listdir(f"/proc/{child.pid}/fd")}
        assert (other in opened) == has_others, opened
        assert {0, 1, 2, given} <= opened
        assert os.readlink(f"/proc/{child.pid}/fd/{given}") == os.readlink(f"/proc/self/fd/{given}")
        assert let_go(child) == b""
        assert ended(child) == 4
    assert os.readlink(f"/proc/self/fd/{other}").startswith("pipe:"), "ours is as it was"
    child = waiting_once_more(others_from=others_from)
    os.close(child.gate)
    assert FAILURE.unpack(reported(child)) == (1, errno.EPIPE), "nobody else holds its gate"
    assert ended(child) == 127


def copied_kib() -> int:
    """Return how much of our memory a child with a copy would get."""
    resident, copied = 0, 0
    with open("/proc/self/smaps") as mappings:
        for line in mappings:
            if line.startswith("Rss:"):
                resident = int(line.split()[1])
            elif line.startswith("VmFlags:") and "dc" not in line.split():
                copied += resident
    return copied


@case
def many_wait_at_their_gates_and_go_in_any_order() -> None:
    w = Writer()
    program = shell(w, "exit 3")
    children = [clone(program) for _ in range(20)]
    assert len({child.pid for child in children}) == 20
    for child in reversed(children):
        assert let_go(child) == b""
        assert ended(child) == 3


@case
def one_that_is_killed_at_its_gate_takes_nobody_along() -> None:
    w = Writer()
    program = shell(w, "exit 3")
    for _ in range(50):
        killed, other = clone(program), clone(program)
        os.kill(killed.pid, signal.SIGKILL)
        assert ended(killed) == -9
        assert let_go(other) == b""
        assert ended(other) == 3
        os.close(killed.gate)
        os.close(killed.report)


@case
def our_signal_handlers_are_not_the_childs() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    w = Writer()
    w.call("rt_sigprocmask", 2, w.block(bytes(8)), 0, 8, label="unblock signals")
    child = clone(shell(w, "kill -TERM $$; sleep 5; exit 1"))
    assert let_go(child) == b""
    assert ended(child) == -signal.SIGTERM
    assert seen == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM], "ours must still be there, and our signals not blocked"


@case
def a_child_can_be_born_in_namespaces_of_its_own_or_among_those_of_another() -> None:
    w = Writer()
    w.clone_flags = n.CLONE_NEWPID | n.CLONE_NEWUTS | n.CLONE_NEWNET
    first = clone(shell(w, "test $$ = 1 && exec sleep 100"))
    assert let_go(first) == b""
    pidfd = os.pidfd_open(first.pid)
    w = Writer()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    w.call("dup3", Slot(0), 1, 0, label="stdout")
    beside = clone(shell(w, "echo $$"), writer, beside=pidfd)
    assert let_go(beside) == b""
    assert ended(beside) == 0
    assert 2 <= int(os.read(reader, 100)) < 10
    os.kill(first.pid, signal.SIGKILL)
    assert ended(first) == -9
    # The next one is born among us again.
    w = Writer()
    again = clone(shell(w, f"test $PPID = {os.getpid()}"))
    assert let_go(again) == b""
    assert ended(again) == 0


@case
def what_cannot_be_cloned_raises_the_kernels_reason_and_leaks_nothing() -> None:
    w = Writer()
    w.clone_flags = 0x10000 | n.CLONE_NEWPID  # CLONE_THREAD: refused
    program = w.finish()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        reason = None
        try:
            clone(program)
        except OSError as error:
            reason = error.errno
        assert reason == errno.EINVAL
    assert os.listdir("/proc/self/fd") == before


@case
def a_program_of_another_version_or_none_at_all_is_refused() -> None:
    w = Writer()
    encoded = shell(w, "exit 0").encode()
    fields = list(HEADER.unpack_from(encoded))
    fields[1] += 1
    for wrong in (HEADER.pack(*fields) + encoded[HEADER.size :], b"\0" * HEADER.size):
        try:
            executor.clone(wrong, [], into_cgroup=None, native=NATIVE)
        except ValueError:
            continue
        raise AssertionError("ran")


@case
def nothing_of_a_life_is_left_in_our_process() -> None:
    w = Writer()
    program = shell(w, "exit 0", *(f"NAME{number}={'x' * 1000}" for number in range(100)))

    def lives(count: int) -> None:
        for _ in range(count):
            child = clone(program)
            assert let_go(child) == b""
            assert ended(child) == 0

    def mapped() -> int:
        with open("/proc/self/statm") as facts:
            return int(facts.read().split()[0])

    def settled() -> int:
        deadline = time.monotonic() + 5
        while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
            os.sched_yield()  # a thread whose child has executed ends within microseconds
        return mapped()

    lives(20)
    before = settled()
    lives(200)
    # One life left behind would be 25 pages, two hundred 5,000.
    assert settled() - before < 500


if __name__ == "__main__":
    CASES[sys.argv[1]]()
