"""Device rules of cgroup v2, judged by the kernel in the v2 hierarchy of this machine."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm.agent_runtime.kernel import cgroup_layout
from pyswarm.agent_runtime.kernel.device_filter import Rule, assemble, attach

NULL, ZERO = (1, 3), (1, 5)
DENY_ALL = Rule(False)


def test_what_comes_before_a_rule_for_everything_is_left_out() -> None:
    assert assemble([Rule(True, "c", 1, 3), DENY_ALL]) == assemble([DENY_ALL])
    assert len(assemble([DENY_ALL, Rule(True, "c", 1, 3)])) > len(assemble([DENY_ALL]))


@pytest.fixture
def folder() -> Iterator[Path]:
    unified = cgroup_layout.detect().unified
    assert unified is not None, "this machine has no cgroup v2"
    path = unified / f"pyswarm-device-filter-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


def tried(folder: Path, device: str, flags: int) -> int:
    """Return the errno with which a process in the cgroup opens a device, 0 for success."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            (folder / "cgroup.procs").write_text("0")
            os.close(os.open(device, flags))
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.kernel
@pytest.mark.parametrize(("rules", "expected"), [
    pytest.param([DENY_ALL], [errno.EPERM] * 3, id="nothing is allowed"),
    pytest.param([DENY_ALL, Rule(True, "c", *NULL)], [0, 0, errno.EPERM], id="one device"),
    pytest.param([DENY_ALL, Rule(True, "c", *NULL, "r")], [0, errno.EPERM, errno.EPERM], id="only reading"),
    pytest.param([DENY_ALL, Rule(True, "c", 1, None)], [0, 0, 0], id="every minor number"),
    pytest.param([DENY_ALL, Rule(True, "b", *NULL)], [errno.EPERM] * 3, id="a block device is another"),
    pytest.param([Rule(True), Rule(False, "c", *NULL, "w")], [0, errno.EPERM, 0], id="all but writing to one"),
    pytest.param([Rule(True, "c", *NULL), DENY_ALL], [errno.EPERM] * 3, id="the last rule that matches decides"),
    pytest.param([], [errno.EPERM] * 3, id="no rule, nothing"),
])  # fmt: skip
def test_the_kernel_answers_by_the_rules(folder: Path, rules: list[Rule], expected: list[int]) -> None:
    attach(folder, rules)
    asked = (("/dev/null", os.O_RDONLY), ("/dev/null", os.O_WRONLY), ("/dev/zero", os.O_RDONLY))
    assert [tried(folder, device, flags) for device, flags in asked] == expected


@pytest.mark.kernel
def test_new_rules_replace_the_old_ones(folder: Path) -> None:
    attach(folder, [DENY_ALL])
    attach(folder, [DENY_ALL, Rule(True, "c", *NULL)])
    assert tried(folder, "/dev/null", os.O_RDONLY) == 0
    attach(folder, [DENY_ALL, Rule(True, "c", *ZERO)])
    assert tried(folder, "/dev/null", os.O_RDONLY) == errno.EPERM
