"""The mixes of faults that seeds are drawn for: what may happen to a group, and how often.

A seed's mix is `MIXES[seed % len(MIXES)]`, so any range of seeds contains them all.
"""

from lib.sim.network import Weather
from msgspec import Struct


class Mix(Struct, frozen=True, kw_only=True):
    name: str
    members: int = 3
    weather: Weather = Weather(slow_chance=0.01)
    faults: tuple[str, ...] = ("part", "one way", "pause", "break links")
    """Names of methods of nemesis.py, drawn with equal chances."""
    fault_seconds: tuple[float, float] = (0.1, 0.7)
    """Between two faults."""
    skew: float = 0.0
    snapshot_entries: int = 10_000
    segment_bytes: int = 1 << 16
    is_store: bool = False


_LINKS = ("part", "isolate leader", "one way", "pause", "break links")
_CRASHES = (*_LINKS, "kill", "power cut", "power cut", "fuse", "rotate key")
_DISKS = (*_CRASHES, "stall", "full", "sync error", "flip")
_MEMBERS = (*_CRASHES, "replace", "replace", "hand over", "move")
_WILD = Weather(is_wild=True, lost_chance=0.03, twice_chance=0.03, overtakes_chance=0.1, slow_chance=0.02)
_SMALL = 4096

MIXES = (
    Mix(name="links", faults=_LINKS, skew=0.1),
    Mix(name="wild links", faults=_LINKS, weather=_WILD),
    Mix(name="wild links, crashes, compaction", faults=_CRASHES, weather=_WILD, snapshot_entries=30,
        segment_bytes=_SMALL),
    Mix(name="crashes", faults=_CRASHES, skew=0.1),
    Mix(name="crashes, compaction", faults=_CRASHES, snapshot_entries=25, segment_bytes=_SMALL),
    Mix(name="disks", faults=_DISKS, snapshot_entries=40, segment_bytes=_SMALL),
    Mix(name="members", faults=_MEMBERS, snapshot_entries=40, segment_bytes=_SMALL),
    Mix(name="members, wild links, disks", faults=(*_MEMBERS, "stall", "full", "flip"), weather=_WILD,
        snapshot_entries=30, segment_bytes=_SMALL),
    Mix(name="five, crashes", members=5, faults=_CRASHES, fault_seconds=(0.1, 0.4), snapshot_entries=40,
        segment_bytes=_SMALL),
    Mix(name="five, members, wild links", members=5, faults=_MEMBERS, weather=_WILD, fault_seconds=(0.1, 0.4),
        snapshot_entries=40, segment_bytes=_SMALL),
    Mix(name="store", faults=_CRASHES, snapshot_entries=40, segment_bytes=_SMALL, is_store=True),
    Mix(name="store, wild links, members", faults=_MEMBERS, weather=_WILD, snapshot_entries=30,
        segment_bytes=_SMALL, is_store=True),
)  # fmt: skip


def mix_of(seed: int) -> Mix:
    return MIXES[seed % len(MIXES)]
