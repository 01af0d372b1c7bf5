"""`init` and `join` start pyswarmd where it does not run yet."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm.manager.cli.client.daemon import ensure_running
from pyswarm.manager.cli.settings import Settings
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.paths import NodePaths


def started_for(root: Path) -> list[int]:
    """Pids of the node supervisors that were started for this root."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if str(root).encode() in words and b"pyswarm.worker.node" in words:
            found.append(int(folder.name))
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(NodePaths(tmp_path))
    for pid in started_for(tmp_path):
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def test_pyswarmd_is_started_once_in_a_session_of_its_own(settings: Settings) -> None:
    asyncio.run(ensure_running(settings))
    asyncio.run(ensure_running(settings))
    (pid,) = started_for(settings.paths.root)
    assert os.getsid(pid) == pid
    assert (settings.paths.logs / "pyswarmd.log").exists()


def test_a_pyswarmd_that_ends_at_once_is_told_with_its_log(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Unavailable) as caught:
        asyncio.run(ensure_running(settings))
    assert str(caught.value) == (
        f"pyswarmd stopped at once with exit status 1\nSee {settings.paths.logs / 'pyswarmd.log'}."
    )
