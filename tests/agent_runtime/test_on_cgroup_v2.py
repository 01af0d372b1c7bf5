"""The runtime on a kernel with cgroup v2 alone, whatever this machine has: limits, devices, pauses, deaths by memory.

Boots user-mode Linux and runs there, with a daemon and containers of their own, tests that run on this machine's
hierarchies too.
"""

import re
import sys
from pathlib import Path

import pytest
from lib import uml

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
TESTS = {
    "kernel/test_cgroups.py": "",
    "kernel/test_cgroup_usage.py": "",
    "container/test_confinement.py": "memory or fork or without_a_limit or cpu_limit or oom or device or disk",
    "container/test_adjust.py": "paus or running_container_gets",
    "container/test_statistics.py": "what_was_used",
    "container/test_oom_events.py": "",
}
AT_LEAST = 40
SECONDS = 280


async def test_what_holds_here_holds_on_cgroup_v2(tmp_path: Path) -> None:
    words = [f"({' or '.join(Path(file).stem for file, only in TESTS.items() if not only)})"]
    words += [f"({Path(file).stem} and ({only}))" for file, only in TESTS.items() if only]
    command = [
        str(Path(sys.executable)), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--tb=short",
        "-k", " or ".join(words), *(f"tests/agent_runtime/{file}" for file in TESTS),
    ]  # fmt: skip
    ran = await uml.run(command, directory=ROOT, scratch=tmp_path, timeout_seconds=SECONDS)
    print(ran.output)
    passed = re.search(r"(\d+) passed", ran.output)
    assert ran.status == 0
    assert passed is not None
    assert int(passed[1]) >= AT_LEAST
