"""Take part in the managers' consensus group: the real `port.Consensus`."""

from collections.abc import Sequence
from pathlib import Path

from pyswarm.manager.raft.port import Member, StateMachine
from pyswarm.manager.raft.settings import RaftSettings, TlsProvider
from pyswarm.manager.sealing.sealer import Sealer

__all__ = ["RaftEngine", "RaftSettings", "TlsProvider"]


class RaftEngine:
    """Implements `port.Consensus`.

    Life: `await open(...)`, then `run()` in a task of the caller's TaskGroup, then `close()`.
    """

    @classmethod
    async def open(
        cls,
        *,
        member: Member,
        members: Sequence[Member],
        state_machine: StateMachine,
        directory: Path,
        sealer: Sealer,
        tls: TlsProvider,
        listen: tuple[str, int],
        cluster_id: str,
        settings: RaftSettings,
    ) -> "RaftEngine":
        """Read the disk, restore `state_machine`, bind the raft port. Nothing is sent before `run`.

        `members` is where a member with an empty `directory` starts: itself alone for the first manager of a
        cluster, the RaftJoinResponse's list (which includes itself) for a joiner. Once there is state on disk it
        is ignored: the members are those of the snapshot and of the log behind it.

        Raises:
            JournalDamaged, SnapshotDamaged, SealBroken: the state on disk cannot be believed; says what to do.
            Unavailable: the port is taken.
        """
        raise AssertionError("under construction")

    async def run(self) -> None:
        """Take part until `close`; owns every task. Raises what broke when the journal or an invariant failed."""
