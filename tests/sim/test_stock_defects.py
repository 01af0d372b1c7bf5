"""The defects S1 to S17 of PySyncObj 0.3.17 as it is published, each shown by a script: they are why the guard exists.

Every test here asserts that the defect shows. Should one turn red with a newer version, the defect is gone, and the
repair it names may go too. The same scripts on ours are green: COUNTERPARTS names them, and a test checks that they
exist; that each would be red without its repair is test_mutations.py's matter.
"""

import ast
import os
import pickle
import socket
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import pytest
from lib.stock_pysyncobj import Clock, StockMember, command, entries, stock

RAFT_TESTS = Path(__file__).parents[1] / "manager" / "raft"

COUNTERPARTS = {
    "S1": ("test_guard_rules.py", "test_a_commit_index_without_a_match_commits_nothing"),
    "S2": ("test_guard_rules.py", "test_a_late_append_cuts_nothing_that_was_acknowledged"),
    "S3": ("test_guard_rules.py", "test_a_vote_counts_once_however_often_it_arrives"),
    "S4": ("test_guard_rules.py", "test_an_acknowledgement_of_an_earlier_leadership_does_not_count"),
    "S5": ("test_roster.py", "test_a_change_is_refused_while_another_one_is_not_committed"),
    "S6": ("test_journal.py", "test_a_snapshot_behind_the_log_keeps_what_follows_it"),
    "S7": ("test_outcomes.py", "test_no_entry_is_larger_than_a_batch_of_the_core"),
    "S8": ("test_outcomes.py", "test_what_raises_while_it_is_applied_stops_the_member_and_is_not_applied_again"),
    "S9": ("test_disk_faults.py", "test_a_disk_that_fails_stops_its_member_loudly_and_no_other"),
    "S10": ("test_core_pinned.py", "test_nothing_on_the_way_from_proposal_to_restart_is_unpickled"),
    "S11": ("test_guard_rules.py", "test_a_received_snapshot_is_not_called_installed_before_it_is"),
    "S12": ("test_members.py", "test_after_a_restart_a_change_in_the_log_is_in_force"),
    "S13": ("test_guard_rules.py", "test_a_command_is_never_forwarded"),
    "S14": ("test_guard_rules.py", "test_an_acknowledgement_waits_for_the_disk"),
    "S15": ("test_guard_rules.py", "test_two_streams_of_snapshots_are_never_spliced"),
    "S16": ("test_guard_rules.py", "test_what_is_under_way_to_a_silent_follower_is_bounded"),
    "S17": ("test_guard_rules.py", "test_a_late_rewind_does_not_move_the_leader_back_again"),
}


def functions_in(name: str) -> set[str]:
    tree = ast.parse((RAFT_TESTS / name).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("defect", COUNTERPARTS)
def test_every_defect_has_its_green_counterpart(defect: str) -> None:
    file, function = COUNTERPARTS[defect]
    assert function in functions_in(file)


NOOP = (b"\x01", 1, 0)


def append(term: int, commit: int, prev: tuple[int, int], *new: tuple[bytes, int, int]) -> dict[str, Any]:
    return {
        "type": "append_entries", "term": term, "commit_index": commit, "prevLogIdx": prev[0], "prevLogTerm": prev[1],
        "entries": list(new),
    }  # fmt: skip


def test_s1_a_message_that_matched_nothing_commits_the_own_tail() -> None:
    a = StockMember(log=[NOOP, *entries(2, 5, term=1)])
    a.hear("b", type="append_entries", term=2, commit_index=5, serialized=None)
    a.tick()
    assert a.texts == ["2.1", "3.1", "4.1", "5.1"], "the leader of term 2 may hold anything there"


def test_s2_a_late_append_cuts_what_was_acknowledged() -> None:
    a = StockMember()
    a.hear("b", **append(1, 0, (1, 0), *entries(2, 9, term=1)))
    assert a.of_type("next_node_idx")[-1]["next_node_idx"] == 10
    a.hear("b", **append(1, 0, (1, 0), *entries(2, 4, term=1)))
    assert a.last_index == 4


def test_s3_a_vote_that_arrives_twice_counts_twice() -> None:
    a = StockMember("bcde")
    a.wait(1.0)
    for _ in range(2):
        a.hear("b", type="response_vote", term=1)
    assert a.core._isLeader(), "by the votes of two out of five"


def test_s4_an_acknowledgement_of_an_earlier_leadership_commits() -> None:
    a = StockMember("bcde", log=[NOOP])
    a.elect("b", "c")
    a.core.add("x")
    a.wait(0.2)
    index = a.last_index
    # The answers carry no term: these may as well be answers to a leadership of long ago.
    for follower in "bc":
        a.acknowledge(follower, index)
    assert "term" not in {"type": "next_node_idx", "next_node_idx": 0, "reset": False, "success": True}
    a.tick()
    assert a.texts == ["x"]


def test_s5_a_second_change_of_members_is_made_while_the_first_is_not_committed() -> None:
    a = StockMember("bcde", log=[NOOP], dynamicMembershipChange=True)
    a.elect("b", "c")
    committed = a.core.raftCommitIndex
    for gone in "bc":
        a.core.removeNodeFromCluster(a.nodes[gone])
    a.tick()
    assert {node.id for node in a.core.otherNodes} == {"d", "e"}
    assert a.core.raftCommitIndex == committed


class Killed(BaseException):
    """What follows is never done."""


def alone(directory: Path) -> StockMember:
    files = {"journalFile": str(directory / "journal"), "fullDumpFile": str(directory / "dump")}
    return StockMember("", **files, logCompactionMinEntries=10**9, logCompactionMinTime=10**9)


def acknowledged_by(member: StockMember, *texts: str) -> list[str]:
    acknowledged: list[str] = []
    for text in texts:
        member.core.add(text, callback=lambda _, why, text=text: why == 0 and acknowledged.append(text))
        member.tick()
        member.tick()
    return acknowledged


def killed_while_compacting(directory: Path, monkeypatch: pytest.MonkeyPatch, method: str, after: int) -> list[str]:
    """Have four writes acknowledged, the last of them after a dump was written, and kill it in its next step."""
    a = alone(directory)
    a.wait(1.0)
    a.tick()
    acknowledged = acknowledged_by(a, "w", "x", "y")
    calls = iter(range(1 << 30))
    journal = stock().journal.FileJournal
    original = getattr(journal, method)

    def kill(self: Any, *arguments: Any) -> Any:
        if next(calls) >= after:
            raise Killed
        return original(self, *arguments)

    a.core.forceLogCompaction()
    a.core.add("z", callback=lambda _, why: why == 0 and acknowledged.append("z"))
    a.tick()
    with monkeypatch.context() as patched:
        patched.setattr(journal, method, kill)
        with pytest.raises(Killed):
            a.tick()
    assert acknowledged == ["w", "x", "y", "z"]
    again = alone(directory)
    again.wait(1.0)
    again.tick()
    again.tick()
    return again.texts


def test_s6a_a_kill_between_the_dump_and_the_cut_of_the_log_loses_what_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "z" not in killed_while_compacting(tmp_path, monkeypatch, "deleteEntriesTo", after=0)


def test_s6b_a_kill_while_the_log_is_cut_loses_its_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "z" not in killed_while_compacting(tmp_path, monkeypatch, "add", after=1)


def test_s7_an_entry_cut_in_pieces_is_finished_twice() -> None:
    a = StockMember(log=[NOOP], appendEntriesBatchSizeBytes=1000)
    a.elect("b")
    large = b"\x00" + b"x" * 2989
    a.log.add(large, a.last_index + 1, a.term)
    a.wait(0.2)
    pieces = [m for to, m in a.sent if to == "b" and "transmission" in m]
    assert [m["transmission"] for m in pieces].count("finish") == 2
    follower = StockMember(log=[NOOP], appendEntriesBatchSizeBytes=1000)
    start, process, finish, _ = pieces
    follower.hear("b", **start)
    follower.hear("b", **process)
    with pytest.raises((EOFError, pickle.UnpicklingError, ValueError, IndexError, KeyError)):
        follower.hear("b", **finish)


def test_s8_an_entry_that_raises_stops_all_that_follows_for_ever() -> None:
    a = StockMember("", log=[NOOP])
    a.wait(1.0)
    a.tick()
    a.core.add("poison")
    a.core.add("good")
    a.tick()
    for _ in range(5):
        with pytest.raises(ValueError, match="poison"):
            a.tick()
    assert a.texts == []


@pytest.mark.kernel
def test_s9_a_full_disk_kills_the_process(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pysyncobj.journal import FileJournal
        journal = FileJournal(sys.argv[1])
        for index in range(10_000):
            journal.add(b"x" * 1000, index, 1)
        """
    )
    mount = f'mount -t tmpfs -o size=64k none "{tmp_path}" && exec "$0" -c "$1" "{tmp_path}/journal"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, sys.executable, script], capture_output=True, check=False, timeout=30
    )
    assert done.returncode == -7, done.stderr.decode()  # SIGBUS


def test_s10_bytes_of_the_network_are_unpickled_before_anybody_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "putenv", lambda *arguments: done.append(arguments))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        poller = stock().poller.createPoller("auto")
        connection = stock().tcp_connection.TcpConnection(poller, socket=ours, onMessageReceived=lambda _: None)
        try:
            body = zlib.compress(pickle.dumps(_Call("os", "putenv", ("PYSWARM_TEST_HARM", "done"))))
            theirs.sendall(struct.pack("i", len(body)) + body)
            poller.poll(0.5)
        finally:
            connection.disconnect()
    assert done == [("PYSWARM_TEST_HARM", "done")]


class _Call:
    """What unpickles to a call of a function that the sender names."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self._arguments = (f"__import__({module!r}).{name}(*{arguments!r})",)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, self._arguments


def test_s11_a_snapshot_that_cannot_be_read_is_acknowledged(tmp_path: Path) -> None:
    a = StockMember(log=[NOOP, *entries(2, 5, term=1)], fullDumpFile=str(tmp_path / "dump"))
    a.hear("b", type="append_entries", term=2, commit_index=1, serialized=(b"no dump", True, False))
    a.hear("b", type="append_entries", term=2, commit_index=1, serialized=(b"", False, True))
    (answer,) = [m for m in a.of_type("next_node_idx") if m["success"]]
    assert answer["next_node_idx"] == 6, "it claims to match the leader up to the end of its own log"


def test_s12_after_a_restart_a_change_in_the_log_is_forgotten() -> None:
    change = (b"\x02" + pickle.dumps(["rem", "c", stock().node.Node("c")], protocol=2), 2, 1)
    a = StockMember(log=[NOOP, change], dynamicMembershipChange=True)
    a.tick()
    assert {node.id for node in a.core.otherNodes} == {"b", "c"}


def test_s13_who_forwards_a_command_into_a_broken_link_never_hears_of_it() -> None:
    a = StockMember()
    a.hear("b", **append(1, 0, (1, 0)))
    a.loses_everything = True
    told: list[Any] = []
    a.core.add("x", callback=lambda *outcome: told.append(outcome))
    for _ in range(1200):
        a.hear("b", **append(1, 0, (1, 0)))
        a.wait(0.1)
    assert a.of_type("apply_command")
    assert told == []


def test_s14_nothing_is_ever_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append("fsync"))
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append("fdatasync"))
    monkeypatch.setattr(stock().journal.ResizableFile, "flush", lambda _: synced.append("msync"))
    a = alone(tmp_path)
    a.wait(1.0)
    a.tick()
    assert acknowledged_by(a, *(str(n) for n in range(50))) == [str(n) for n in range(50)]
    a.core.forceLogCompaction()
    a.wait(2.0)
    a.wait(2.0)
    assert (tmp_path / "dump").exists()
    assert synced == []


def test_s15_pieces_of_two_snapshots_are_put_together(tmp_path: Path) -> None:
    a = StockMember(log=[NOOP], fullDumpFile=str(tmp_path / "dump"))
    for piece in [(b"one ", True, False), (b"end of two", False, False), (b"", False, True)]:
        a.hear("b", type="append_entries", term=1, commit_index=1, serialized=piece)
    assert (tmp_path / "dump").read_bytes() == b"one end of two"
    assert a.of_type("next_node_idx")[-1]["success"]


def test_s16_a_leader_that_writes_its_dump_floods_who_needs_it(tmp_path: Path) -> None:
    serializing = stock().config.SERIALIZER_STATE.SERIALIZING
    idle = stock().config.SERIALIZER_STATE.NOT_SERIALIZING
    states = [idle]
    a = StockMember(
        log=[NOOP, *entries(2, 20, term=1)], fullDumpFile=str(tmp_path / "dump"), serializer=lambda *_: None,
        deserializer=lambda _: None, serializeChecker=lambda: states[0],
    )  # fmt: skip
    a.elect("b")
    a.log.deleteEntriesTo(9)
    a.core.forceLogCompaction()
    a.tick()
    states[0] = serializing
    a.hear("c", type="next_node_idx", next_node_idx=2, reset=True, success=False)
    a.sent.clear()
    a.clock = stock().syncobj.monotonicTime = Clock(a.clock.now, step=0.001)
    a.wait(0.2)
    empty = [m for to, m in a.sent if to == "c" and m.get("serialized", 0) is None]
    assert len(empty) > 20, "as many as fit into a tenth of a second"


def test_s17_a_follower_whose_tail_differs_is_never_brought_up_to_date() -> None:
    padding = "x" * 1000
    common = [NOOP, *[(command(padding), index, 1) for index in range(2, 101)]]
    theirs = [(command(padding + "old"), index, 1) for index in range(101, 201)]
    ours = [(command(padding + "new"), index, 2) for index in range(101, 401)]
    leader, follower = StockMember(log=common + ours), StockMember("bc", log=common + theirs)
    stock().syncobj.monotonicTime = leader.clock
    leader.wait(1.0)
    leader.hear("b", type="response_vote", term=leader.term)
    assert leader.core._isLeader()
    for _ in range(60):
        stock().syncobj.monotonicTime = leader.clock
        leader.wait(0.11)
        for message in [m for to, m in leader.sent if to == "b"]:
            follower.hear("c", **message)
        leader.sent.clear()
        for answer in follower.of_type("next_node_idx"):
            leader.hear("b", **answer)
        follower.sent.clear()
    assert follower.log[150][2] == 1, "after sixty rounds on a perfect network"


def test_the_copy_is_untouched_and_ours_stays_set_up() -> None:
    import pysyncobj.syncobj as ours

    from pyswarm.manager.raft import core

    assert stock().syncobj is not ours
    assert ours.pickle is core._Commands
