"""Compare this manager's state with the others' at each checkpoint, and stop when it is the one that is wrong.

Nothing is repaired here: a state that differs is a fault of ours, and a manager that goes on with it would hand it on
in snapshots. What differs, and who is outvoted, is decided in store/checkpoints.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from pyswarm.manager.raft.port import Member
from pyswarm.manager.store.checkpoints import Checkpoint, find_disagreement
from pyswarm.manager.store.store import Store
from pyswarm.proto.errors import Internal, SwarmError
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

COMPARE_SECONDS = 10.0
ANSWER_SECONDS = 5.0

REMEDY = (
    "Keep this manager's files and log for a report: this is a fault in pyswarm. Then demote and remove the node "
    "(`pyswarm node demote`, `pyswarm node rm --force`), run `pyswarm leave --force` there, and let it join again."
)

Ask = Callable[[str], Awaitable[Sequence[Checkpoint]]]
"""Ask the manager at this API address for its checkpoints; raises SwarmError."""


class Agreement:
    def __init__(self, *, own_node_id: str, members: Callable[[], Sequence[Member]], store: Store, ask: Ask) -> None:
        self._own_node_id = own_node_id
        self._members = members
        self._store = store
        self._ask = ask
        self._compared = 0
        """The newest version at which the others were asked."""

    async def run(self) -> None:
        """Compare after each new checkpoint, until cancelled. Raises Internal when this manager must stop."""
        while True:
            await asyncio.sleep(COMPARE_SECONDS)
            await self.compare()

    async def compare(self) -> None:
        """Ask the others, if there is a checkpoint they were not asked about; an absent one asks us when it is back.

        Raises:
            Internal: a majority agrees on another state than ours.
        """
        own = self._store.checkpoints()
        if not own or own[-1].version == self._compared:
            return
        self._compared = own[-1].version
        members = self._members()
        others = [member for member in members if member.node_id != self._own_node_id]
        answers = await asyncio.gather(*(self._checkpoints_of(member) for member in others))
        found = {member.node_id: answer for member, answer in zip(others, answers, strict=True)}
        disagreement = find_disagreement(own, found, managers=len(members))
        if disagreement is None:
            return
        differing = ", ".join(disagreement.differing)
        if disagreement.is_outvoted:
            raise Internal(
                f"this manager's state at version {disagreement.version} is not that of the majority ({differing})",
                remedy=REMEDY,
            )
        log.error("managers disagree about the state", version=disagreement.version, differing=differing)

    async def _checkpoints_of(self, member: Member) -> Sequence[Checkpoint]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._ask(member.api_addr)
        except (SwarmError, TimeoutError) as error:
            log.info("state not compared", node=member.node_id, reason=str(error) or "no answer in time")
            return ()
