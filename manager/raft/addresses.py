"""Where the members are to be found: what the log says, and what a member that has moved says of itself since.

A member says where it is in the greeting of every stream it dials, under its certificate. Who hears of a new address
dials there from then on; the leader puts it into the log, one move at a time, so that those who were not greeted
learn it too and it outlasts every restart. The voters stay the same, so a move needs none of the care that a change
of members does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pyswarm.manager.raft.core import FAIL_REASON, Callback
from pyswarm.manager.raft.leadership import Board
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.state import Members
from pyswarm.proto.log import get_logger

log = get_logger(__name__)


class Links(Protocol):
    def move_peer(self, member: Member) -> None:
        """Dial `member` at its new address, if it is dialled at all."""


class AddressBook:
    """Used by engine.py, on its event loop."""

    def __init__(
        self,
        *,
        own: Member,
        members: Members,
        links: Links,
        submit: Callable[[Member, Callback], None],
    ) -> None:
        """`submit` puts a move into the log of this leader."""
        self._members = members
        self._links = links
        self._submit = submit
        self._logged = members.present()
        self._told: dict[str, Member] = {}
        """What members said that the log does not say yet."""
        self._is_moving = False
        self.board: Board[tuple[Member, ...]] = Board(self._sorted())
        self.told(own)

    def find(self, raft_id: str) -> Member | None:
        """Return the member, with the address it was last heard to have."""
        return self._told.get(raft_id) or self._members.known(raft_id)

    def told(self, member: Member) -> None:
        """A member has said where it is; who it is was checked."""
        logged = self._logged.get(member.raft_id)
        if logged is None or logged == member:
            self._told.pop(member.raft_id, None)
        elif self._told.get(member.raft_id) != member:
            log.info("member has moved", node=member.node_id, addr=member.raft_addr, before=logged.raft_addr)
            self._told[member.raft_id] = member

    def log_changed(self) -> None:
        """The members may not be the same as before."""
        before, self._logged = self._logged, self._members.present()
        for raft_id, member in self._logged.items():
            if self._told.get(raft_id) == member:
                del self._told[raft_id]
            if before.get(raft_id, member) != member and raft_id not in self._told:
                self._links.move_peer(member)
        for raft_id in self._told.keys() - self._logged.keys():
            del self._told[raft_id]
        self.board.post(self._sorted())

    def announce(self) -> None:
        """Put what was told into the log. Called on a leader that is ready; costs nothing while there is nothing."""
        if self._is_moving or not self._told:
            return
        member = next(iter(self._told.values()))
        self._is_moving = True
        self._submit(member, partial(self._announced, member))

    def _announced(self, member: Member, _result: Any, why: int) -> None:
        self._is_moving = False
        if why == FAIL_REASON.SUCCESS:
            log.info("member's address changed", node=member.node_id, addr=member.raft_addr)

    def _sorted(self) -> tuple[Member, ...]:
        return tuple(member for _, member in sorted(self._logged.items()))
