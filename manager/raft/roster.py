"""Change who is a member: one voter at a time, on the leader, and only when the group can bear it.

Decides what is refused; the change itself is an entry of the log, put into force by the core as soon as it is there
(core.py), and who is a member after it is membership.py's matter. Used by engine.py.
"""

import asyncio
from typing import Any, Protocol

from pyswarm.manager.raft.commands import MemberChange
from pyswarm.manager.raft.core import FAIL_REASON, Core
from pyswarm.manager.raft.guard import Guard
from pyswarm.manager.raft.membership import majority
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.rules import Rules
from pyswarm.manager.raft.state import Members
from pyswarm.manager.raft.transport import TlsTransport
from pyswarm.proto.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
)
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

LINK_SECONDS = 5.0
"""How long a new member may take to be reached before it is refused."""

CHANGE_SECONDS = 10.0


class Office(Protocol):
    """What a change of members asks of the engine."""

    @property
    def is_down(self) -> bool: ...

    def must_have_quorum(self, *, of_all: bool = True) -> None:
        """Raises NotLeader, Unavailable."""

    async def until_ready(self) -> None:
        """Wait until this leader has applied an entry of its term. Raises NotLeader, Unavailable."""

    def not_leader(self) -> NotLeader: ...

    def reachable(self) -> frozenset[str]: ...

    def wake(self) -> None: ...


class Roster:
    def __init__(
        self,
        office: Office,
        *,
        own_id: str,
        members: Members,
        guard: Guard,
        core: Core,
        transport: TlsTransport,
        rules: Rules,
    ) -> None:
        self._office = office
        self._own_id = own_id
        self._members = members
        self._guard = guard
        self._core = core
        self._transport = transport
        self._rules = rules
        self._change = asyncio.Lock()
        self._changed = asyncio.Event()
        self._links: dict[str, asyncio.Event] = {}

    def link_up(self, raft_id: str) -> None:
        if raft_id in self._links:
            self._links[raft_id].set()

    def leadership_changed(self) -> None:
        """Whoever waits for a change looks again: this member may not lead any more, or be stopping."""
        self._changed.set()

    async def add(self, member: Member) -> None:
        """As in the port. The member must be running: it is dialled before it counts.

        Raises:
            FailedPrecondition: it cannot be reached, or its node is a member under another raft id.
            NotLeader, Unavailable, OutcomeUnknown: as `propose`.
        """
        async with self._change:
            self._office.must_have_quorum()
            present = self._members.present()
            known = present.get(member.raft_id)
            if known == member:
                return
            if known is not None or self._members.was_removed(member.raft_id):
                raise AlreadyExists(f"the raft id {member.raft_id} is or was another member's")
            await self._reach(member)
            try:
                await self._commit(MemberChange("add", member))
            except (NotLeader, Unavailable):
                if member.raft_id not in self._members.present():
                    self._transport.drop_peer(member.raft_id)
                raise
            log.info("member added", node=member.node_id, raft_id=member.raft_id)

    async def _reach(self, member: Member) -> None:
        """A voter that cannot be reached costs the group its quorum, so try before it counts."""
        linked = self._links[member.raft_id] = asyncio.Event()
        try:
            self._transport.add_peer(member)
            if member.raft_id in self._guard.linked():
                return
            async with asyncio.timeout(LINK_SECONDS):
                await linked.wait()
        except TimeoutError as error:
            self._transport.drop_peer(member.raft_id)
            raise FailedPrecondition(
                f"the leader cannot reach node {member.node_id} at {member.raft_addr}",
                remedy="Start the manager there first, and let the other managers reach its raft port.",
            ) from error
        finally:
            del self._links[member.raft_id]

    async def remove(self, raft_id: str) -> None:
        async with self._change:
            self._office.must_have_quorum(of_all=False)
            present = self._members.present()
            if raft_id not in present:
                raise NotFound(f"no member has the raft id {raft_id}")
            if raft_id == self._own_id:
                raise FailedPrecondition(
                    "the leader cannot remove itself", remedy="Hand leadership over first, then ask the new leader."
                )
            rest = set(present) - {raft_id}
            reached = len(rest & self._office.reachable())
            if reached < majority(len(rest)):
                raise FailedPrecondition(
                    f"of the {len(rest)} managers that would remain only {reached} can be reached: no majority",
                    remedy="Bring other managers back first.",
                )
            await self._commit(MemberChange("rem", present[raft_id]))
            log.info("member removed", node=present[raft_id].node_id, raft_id=raft_id)

    async def _commit(self, change: MemberChange) -> None:
        """Commit one change, when no other one is on its way."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_result: Any, why: int) -> None:
            if outcome.done():
                return
            if why == FAIL_REASON.SUCCESS:
                outcome.set_result(None)
            elif why == FAIL_REASON.REQUEST_DENIED:
                outcome.set_exception(Unavailable("the core refused the change of members"))
            else:
                outcome.set_exception(self._office.not_leader())

        is_submitted = False
        try:
            async with asyncio.timeout(CHANGE_SECONDS):
                await self._office.until_ready()
                is_changing = self._members.last_change_index() > self._guard.committed
                if is_changing and self._rules.one_change_at_a_time:
                    raise FailedPrecondition(
                        "another change of members is not committed yet", remedy="Try again in a moment."
                    )
                self._core.submit_change(change, done)
                is_submitted = True
                self._office.wake()
                await self._settled_or_deposed(outcome)
        except TimeoutError as error:
            if is_submitted:
                raise OutcomeUnknown(f"the change of members was not committed within {CHANGE_SECONDS:g} s") from error
            raise Unavailable("this manager leads but is not ready yet") from error
        finally:
            # The core may answer a change that nobody waits for any more.
            outcome.cancel()

    async def _settled_or_deposed(self, outcome: "asyncio.Future[None]") -> None:
        term = self._guard.term
        outcome.add_done_callback(lambda _: self._changed.set())
        self._changed.clear()
        while not outcome.done():
            if self._office.is_down or not self._core.is_leader or self._guard.term != term:
                raise OutcomeUnknown("leadership was lost while the members were being changed")
            await self._changed.wait()
            self._changed.clear()
        await outcome
