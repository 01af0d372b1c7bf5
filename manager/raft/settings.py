"""What a member of the consensus group can be told: time limits, sizes, and where its credentials come from.

Values only. The defaults suit a LAN; `RaftSettings` refuses orders of magnitude that would make elections
impossible. Read by engine.py and what it is built of.
"""

import ssl
from typing import Protocol

from msgspec import Struct

from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.proto.errors import InvalidArgument


class TlsProvider(Protocol):
    """Asked for each new connection, so that a renewed certificate is taken up without a restart."""

    def __call__(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """Return (server, client) contexts: TLS 1.3 only, both certificates required, host names not checked."""


class RaftSettings(Struct, frozen=True, kw_only=True):
    """Times are seconds, sizes bytes.

    Raises:
        InvalidArgument: the times do not fit each other.
    """

    heartbeat_seconds: float = 0.1
    election_seconds: tuple[float, float] = (0.4, 0.8)
    """A follower that heard no leader for a random time between the two stands for election."""

    quorum_lost_seconds: float = 1.5
    """A leader that heard no majority for this long stops leading."""

    snapshot_entries: int = 10_000
    snapshot_bytes: int = 64 * 1024 * 1024
    """A snapshot is written when the journal grew by either of the two since the last one."""

    snapshot_tail_entries: int = 1_000
    """Entries that a snapshot covers and that are kept, so that a slow follower need not be given a snapshot."""

    payload_bytes_max: int = 1_572_864
    """Largest single proposal."""

    entry_bytes_max: int = 1_048_576
    entry_proposals_max: int = 512
    """One journal entry carries all waiting proposals, up to either of the two (a larger one travels alone)."""

    proposals_max: int = 4096
    """Proposals that may wait for their turn; one more is refused as unavailable."""

    segment_bytes: int = 16 * 1024 * 1024
    """A journal segment that reached this size is followed by a new one."""

    rules: Rules = ALL_RULES
    """The repairs in force: all, except in a test of what happens without one."""

    def __post_init__(self) -> None:
        low, high = self.election_seconds
        if not 0 < self.heartbeat_seconds * 3 < low < high:
            raise InvalidArgument(
                f"heartbeat {self.heartbeat_seconds} s and election timeouts {low}-{high} s do not fit",
                remedy="The shorter election timeout must be more than three heartbeats and less than the longer one.",
            )
        if self.quorum_lost_seconds < high:
            raise InvalidArgument(
                f"a leader would give up after {self.quorum_lost_seconds} s, before others stand ({high} s)",
                remedy="Let quorum_lost_seconds be at least the longer election timeout.",
            )
