"""The one door to PySyncObj: its version is pinned, and the five names it must not use are replaced.

`SyncObj` decides elections, replication and commitment; guard.py stands between it and everybody else. What this
module changes in the package, once, at import:

    createJournal          hands our Journal through (the object is passed as `conf.journalFile`)
    pickle                 our own encoding of commands: nothing is pickled or unpickled
    createPoller           it has no sockets of its own; polling them costs a system call per tick
    PIPE_NOTIFIER_ENABLED  it is woken by us; the notifier's pipe would never be closed
    monotonicTime          the clock that everybody else here uses; its own costs ten times as much

Private parts relied on: `_applyCommand`, `_checkCommandsToApply`, `_isLeader`, `_getLeader`, `__sendAppendEntries`;
pinned by a test.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import pysyncobj.syncobj as syncobj
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.config import FAIL_REASON, SERIALIZER_STATE
from pysyncobj.journal import Journal as CoreJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from pyswarm.manager.raft.commands import (
    MEMBERSHIP,
    REGULAR,
    MemberChange,
    decode_change,
    encode_batch,
    encode_change,
    encode_move,
    is_regular,
)
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import RaftSettings

__all__ = [
    "CANDIDATE",
    "FAIL_REASON",
    "FOLLOWER",
    "LEADER",
    "NOBODY",
    "SERIALIZER_STATE",
    "Core",
    "CoreJournal",
    "RaftNode",
    "Transport",
    "changing_membership",
    "core_configuration",
]

PINNED = "0.3.17"
assert VERSION == PINNED, f"the consensus core is proven with PySyncObj {PINNED}, found {VERSION}"

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
NEVER = 10**9
APPEND_BATCH_BYTES = 4 * 1024 * 1024
"""Larger than any entry, so that the core never cuts entries in pieces (it does so wrongly)."""

Apply = Callable[[int, bytes], object]
"""Apply the body of a regular command committed at an index; what it returns goes to the proposer's callback."""

Callback = Callable[[Any, int], None]


class RaftNode(str, Node):  # type: ignore[misc]
    """A member as the core sees it: compared by raft id, carrying the rest along.

    A string, because the core looks its nodes up dozens of times for each write: `Node` does that in Python.
    """

    def __new__(cls, member: Member) -> "RaftNode":
        return super().__new__(cls, member.raft_id)

    def __init__(self, member: Member) -> None:
        Node.__init__(self, member.raft_id, member=member)

    def __bool__(self) -> bool:
        return True


NOBODY = RaftNode(Member("", "", "", ""))
"""Stands for the unknown others of a member that does not know its group yet: never connected, so that the
core, which lets a member without others elect itself, waits."""


class changing_membership:
    """Within this, the core puts the membership changes it reads into force.

    That is when they enter the log, or are cut off it again. Later, when they are applied, they are passed over:
    after a restart the core would otherwise return for a moment to members that have been removed since.
    Nothing is awaited within it.
    """

    is_on = False

    def __enter__(self) -> None:
        changing_membership.is_on = True

    def __exit__(self, *_: object) -> None:
        changing_membership.is_on = False


class _Commands:
    """Takes the place of the pickle module inside the core."""

    @staticmethod
    def loads(body: bytes) -> Any:
        if is_regular(body):
            return (0, (body,))  # arguments of method 0, the only replicated one
        change = decode_change(body)
        kind = change.kind if changing_membership.is_on else "in force already"
        return [kind, change.member.raft_id, RaftNode(change.member)]

    @staticmethod
    def dumps(request: Any) -> bytes:
        kind, _, node = request
        return encode_change(MemberChange(kind, node.member))


class _NoPoller:
    def poll(self, timeout: float) -> None:
        """Nothing to wait for: messages are brought by the guard."""

    def subscribe(self, *arguments: Any) -> None:
        """Never called: the core has no descriptors."""


def _keep_our_journal(journal: CoreJournal) -> CoreJournal:
    assert isinstance(journal, CoreJournal), "a member's journal is made before its core"
    return journal


syncobj.createJournal = _keep_our_journal
syncobj.pickle = _Commands
syncobj.createPoller = lambda _: _NoPoller()
syncobj.PIPE_NOTIFIER_ENABLED = False
syncobj.monotonicTime = time.monotonic


class Core(SyncObj):  # type: ignore[misc]
    """PySyncObj with one replicated method."""

    def __init__(
        self,
        member: Member,
        others: Iterable[RaftNode],
        *,
        configuration: SyncObjConf,
        transport: Transport,
        apply: Apply,
    ) -> None:
        self.apply_body = apply
        self._may_have_commands = True
        self._period_seconds = float(configuration.appendEntriesPeriod)
        self._log = configuration.journalFile
        super().__init__(RaftNode(member), others, configuration, transport=transport)

    @replicated  # type: ignore[untyped-decorator, unused-ignore]
    def commit_body(self, body: bytes) -> object:
        """Called by the core for each committed regular entry; the entry counts as applied afterwards."""
        return self.apply_body(self.raftLastApplied + 1, body)

    def submit(self, payloads: list[bytes], callback: Callback) -> None:
        """Put one entry that carries `payloads` into the core's queue; `take_commands` or the next tick takes it."""
        self._may_have_commands = True
        self._applyCommand(encode_batch(payloads), callback, REGULAR)

    def submit_change(self, change: MemberChange, callback: Callback) -> None:
        self._may_have_commands = True
        self._applyCommand(encode_change(change), callback, MEMBERSHIP)

    def submit_move(self, member: Member, callback: Callback) -> None:
        self._may_have_commands = True
        self._applyCommand(encode_move(member), callback, REGULAR)

    def take_commands(self) -> None:
        """Let what was submitted enter the log and be sent, without all else that a tick does."""
        self._checkCommandsToApply()

    def _checkCommandsToApply(self) -> None:
        if not self._may_have_commands:
            return
        began = syncobj.monotonicTime()
        last_index = self._log.last_index
        with changing_membership():
            super()._checkCommandsToApply()
        if self._log.last_index > last_index:
            self.send_appends()
        # It looks at the time between two commands, and leaves some for the next tick when they take too long.
        self._may_have_commands = syncobj.monotonicTime() - began >= self._period_seconds

    def send_appends(self) -> None:
        """Send every follower what it lacks, or where nothing does, how far is committed; only a leader may.

        By itself the core does so with each heartbeat only: once for each command and once more after each commit is
        what it would do otherwise, and each time costs as much as all else it does for an entry.
        """
        self._SyncObj__sendAppendEntries()

    @property
    def is_leader(self) -> bool:
        return bool(self._isLeader())

    @property
    def believed_leader(self) -> RaftNode | None:
        found: RaftNode | None = self._getLeader()
        return found


def core_configuration(
    *,
    settings: RaftSettings,
    journal: CoreJournal,
    marker: str,
    serializer: Callable[[str, Any], None],
    serialize_checker: Callable[[], int],
    deserializer: Callable[[str], Any],
    on_state_changed: Callable[[int, int], None],
) -> SyncObjConf:
    """Return the core's configuration.

    `marker` is a file that exists while there is a snapshot; the core moves it about in the belief that it is
    one. Elections are decided by the guard, which is why the core's own time limits lie below the guard's: when
    the guard lets it stand, its own has passed.
    """
    low, _ = settings.election_seconds
    floor = settings.heartbeat_seconds * 3
    return SyncObjConf(
        autoTick=False,
        dynamicMembershipChange=True,
        commandsWaitLeader=False,
        appendEntriesUseBatch=True,
        appendEntriesBatchSizeBytes=APPEND_BATCH_BYTES,
        appendEntriesPeriod=settings.heartbeat_seconds,
        raftMinTimeout=floor + (low - floor) * 0.25,
        raftMaxTimeout=floor + (low - floor) * 0.5,
        connectionTimeout=NEVER,
        leaderFallbackTimeout=settings.quorum_lost_seconds if settings.rules.check_quorum else NEVER,
        logCompactionMinEntries=NEVER,
        logCompactionMinTime=NEVER,
        fullDumpFile=marker,
        journalFile=journal,
        useFork=False,
        serializer=serializer,
        serializeChecker=serialize_checker,
        deserializer=deserializer,
        onStateChanged=on_state_changed,
    )
