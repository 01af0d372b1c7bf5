"""pyswarmd and a locked manager: it waits for the key, keeps it in memory alone, and starts the manager with it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.proto.errors import FailedPrecondition, Locked
from pyswarm.proto.paths import NodePaths
from pyswarm.worker.supervisor import daemons, node_file
from pyswarm.worker.supervisor.membership import Membership
from pyswarm.worker.supervisor.server import SupervisorServer

TESTS = Path(__file__).parents[2]
RIGHT, WRONG, NEXT = "SWMKEY-1-right", "SWMKEY-1-wrong", "SWMKEY-1-next"


async def say(_: str) -> None:
    """Nobody listens."""


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Membership]:
    """pyswarmd on a manager's machine, after a boot."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setitem(daemons.MODULES, "pyswarm-manager", "lib.locked_daemon")
    paths = NodePaths(tmp_path)
    (tmp_path / "right-key").write_text(RIGHT)
    node_file.write(paths.node_file, {"node_id": "n1", "cluster_id": "c1", "role": "manager", "advertise_addr": "a"})
    membership = Membership(paths)
    server = SupervisorServer(paths.supervisor_socket, membership)
    await server.start()
    membership.manager.start()
    async with asyncio.timeout(20):
        await membership.manager.locked.wait()
        yield membership
    await membership.manager.stop()
    await server.close()


async def test_a_locked_manager_waits_for_its_key(node: Membership):
    assert node.manager.process is None
    assert (await node.status())["locked"] is True
    with pytest.raises(Locked, match="does not open") as refused:
        await node.unlock({"key": WRONG}, say)
    assert refused.value.remedy
    assert (await node.status())["locked"] is True
    assert node.manager.unlock_keys == ()

    await node.unlock({"key": RIGHT}, say)
    assert (await node.status())["locked"] is False
    assert node.manager.process is not None
    with pytest.raises(FailedPrecondition, match="not locked"):
        await node.unlock({"key": RIGHT}, say)


async def test_whoever_unlocks_may_be_quicker_than_the_manager_says_that_it_is_locked(node: Membership):
    await node.manager.stop()
    node.manager.start()
    assert not node.manager.locked.is_set()
    await node.unlock({"key": RIGHT}, say)
    assert node.manager.process is not None


async def test_a_manager_that_crashes_is_started_again_with_the_key(node: Membership):
    await node.unlock({"key": RIGHT}, say)
    first = node.manager.process
    assert first is not None
    node._joined.clear()
    first.signal(signal.SIGKILL)
    await node._joined.wait()
    assert node.manager.process not in (None, first)


async def test_the_key_that_the_manager_names_later_is_the_one_it_is_started_with(node: Membership, tmp_path: Path):
    await node.unlock({"key": RIGHT}, say)
    (tmp_path / "right-key").write_text(NEXT)
    await node.keep_unlock_keys({"keys": [RIGHT, NEXT]})
    node._joined.clear()
    process = node.manager.process
    assert process is not None
    process.signal(signal.SIGKILL)
    await node._joined.wait()


async def test_the_key_is_in_no_file_no_command_line_and_no_environment(node: Membership, tmp_path: Path):
    await node.unlock({"key": RIGHT}, say)
    (tmp_path / "right-key").unlink()
    process = node.manager.process
    assert process is not None
    seen = [Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not [content for content in (*seen, *written) if RIGHT.encode() in content]


@pytest.mark.parametrize("operation", ["force_new_cluster", "readdress"])
async def test_what_would_start_the_manager_is_refused_while_it_is_locked(node: Membership, operation: str):
    with pytest.raises(Locked) as refused:
        await getattr(node, operation)({"advertise_addr": "b"}, say)
    assert "pyswarm unlock" in refused.value.remedy
    assert (node.record() or {})["advertise_addr"] == "a"


async def test_a_node_that_leaves_forgets_the_key(node: Membership):
    await node.unlock({"key": RIGHT}, say)
    await node.leave({"force": True}, say)
    assert node.manager.unlock_keys == ()
    assert (await node.status())["locked"] is False


async def test_a_request_that_fails_is_logged_without_its_arguments(
    node: Membership, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    async def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(node, "unlock", broken)
    reader, writer = await asyncio.open_unix_connection(str(node._paths.supervisor_socket))
    writer.write(json.dumps({"op": "unlock", "key": RIGHT}).encode() + b"\n")
    answer = json.loads(await reader.readline())
    writer.close()
    assert (answer["ok"], answer["code"]) == (False, "internal")
    assert "a request failed" in caplog.text
    assert RIGHT not in caplog.text
