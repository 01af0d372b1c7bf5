"""What we rely on inside PySyncObj, and that nothing is pickled: a new version of it must be read before it is used."""

import inspect
import io
import pickle
import re
from pathlib import Path

import pysyncobj.syncobj as syncobj
import pytest
from lib.raft_lab import raft_lab
from lib.source import ROOT
from pysyncobj.serializer import Serializer
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from pyswarm.manager.raft import commands, core

PARTS = {
    "_applyCommand": ["self", "command", "callback", "commandType"],
    "_checkCommandsToApply": ["self"],
    "_isLeader": ["self"],
    "_getLeader": ["self"],
    "_SyncObj__sendAppendEntries": ["self"],
    "doTick": ["self", "timeToWait"],
    "forceLogCompaction": ["self"],
    "transferLeadership": ["self", "node", "callback"],
}


def test_the_version_is_the_one_that_was_proven() -> None:
    assert VERSION == core.PINNED == "0.3.17"
    assert f'"pysyncobj=={VERSION}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_part_of_the_core_is_as_we_call_it(name: str) -> None:
    assert list(inspect.signature(getattr(syncobj.SyncObj, name)).parameters) == PARTS[name]


@pytest.mark.parametrize("name", ["raftCurrentTerm", "raftCommitIndex", "raftLastApplied", "otherNodes"])
def test_a_property_of_the_core_is_public(name: str) -> None:
    assert isinstance(getattr(syncobj.SyncObj, name), property)


def test_the_core_numbers_commands_as_we_do() -> None:
    kinds = syncobj._COMMAND_TYPE
    assert (kinds.REGULAR, kinds.NO_OP, kinds.MEMBERSHIP) == (commands.REGULAR, commands.NOOP, commands.MEMBERSHIP)
    states = syncobj._RAFT_STATE
    assert (states.FOLLOWER, states.CANDIDATE, states.LEADER) == (core.FOLLOWER, core.CANDIDATE, core.LEADER)


def test_the_core_has_the_callbacks_the_guard_calls() -> None:
    for name in ("_onMessageReceived", "_onNodeConnected", "_onNodeDisconnected"):
        assert callable(getattr(Transport, name))


def test_the_core_leaves_its_send_loop_when_a_peer_is_gone() -> None:
    """What stops the flood of empty snapshots (S16), and keeps the core from streaming one itself."""
    source = inspect.getsource(syncobj.SyncObj._SyncObj__sendAppendEntries)  # type: ignore[attr-defined]
    assert source.count("if node not in self.__connectedNodes:\n") == 4


def test_the_core_imports_what_we_replace_by_name() -> None:
    source = inspect.getsource(syncobj)
    for line in ("import pysyncobj.pickle as pickle", "createJournal(self.__conf.journalFile)", "createPoller("):
        assert line in source
    assert syncobj.pickle is core._Commands
    assert not hasattr(syncobj.pickle, "load")
    assert syncobj.PIPE_NOTIFIER_ENABLED is False


def test_a_custom_serializer_never_forks_or_pickles() -> None:
    source = inspect.getsource(Serializer)
    assert "tryUseFork and hasattr(os, 'fork') and serializer is None" in source


def test_no_source_of_ours_unpickles() -> None:
    using = re.compile(r"pickle\.(loads?|Unpickler)|import pickle|cloudpickle|marshal\.|shelve")
    assert [str(f) for f in (ROOT / "manager" / "raft").glob("*.py") if using.search(f.read_text())] == []


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was executed",))


def test_a_pickle_in_a_command_is_refused_not_run() -> None:
    for command in (pickle.dumps(Bomb()), b"\x00" + pickle.dumps(Bomb()), b"\x02" + pickle.dumps(Bomb())):
        with pytest.raises(commands.BadMessage):
            commands.check(command)


async def test_nothing_on_the_way_from_proposal_to_restart_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> object:
        raise AssertionError("something was unpickled")

    for name in ("loads", "load", "Unpickler", "_loads", "_load", "_Unpickler", "dumps", "dump"):
        monkeypatch.setattr(pickle, name, refuse)
    with pytest.raises(AssertionError):
        pickle.load(io.BytesIO())
    async with raft_lab(tmp_path, 2) as lab:
        leader = await lab.leader()
        await leader.engine.propose(b"x")
        for member in lab.members:
            await member.kill()
            await member.start()
        await (await lab.leader()).engine.propose(b"y")
