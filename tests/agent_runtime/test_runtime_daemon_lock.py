"""Only one runtime daemon touches a node's images and containers."""

import asyncio
import fcntl
import sys
from pathlib import Path

from pyswarm.proto.paths import NodePaths


async def test_a_daemon_that_is_refused_leaves_the_others_unfinished_work_alone(tmp_path: Path) -> None:
    paths = NodePaths(tmp_path)
    unfinished = [paths.runtime / "layers/.new-1", paths.runtime / "load-1"]
    for folder in unfinished:
        folder.mkdir(parents=True)
    with (paths.runtime / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pyswarm.agent_runtime.main", "--root", str(tmp_path)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 1
    assert "another runtime daemon" in said.decode()
    assert all(folder.exists() for folder in unfinished)
