"""Who is a member: the snapshot's members and every change in the log behind it, committed or not (pure).

That is the rule of the Raft thesis: a change is in force as soon as it is in the log, also after a restart. A
member without a snapshot does not know its group: it is told by its first snapshot, and until then can only vote.
"""

from collections.abc import Iterable, Mapping, Sequence

from pyswarm.manager.raft.commands import MemberChange
from pyswarm.manager.raft.port import Member


def after(
    base: Mapping[str, Member], changes: Iterable[tuple[int, MemberChange]], *, beyond: int, up_to: int | None = None
) -> dict[str, Member]:
    """Return the members once the changes with indexes above `beyond` (and not above `up_to`) are made to `base`."""
    members = dict(base)
    for index, change in changes:
        if index <= beyond or (up_to is not None and index > up_to):
            continue
        raft_id = change.member.raft_id
        if change.kind == "add" or (change.kind == "move" and raft_id in members):
            members[raft_id] = change.member
        elif change.kind == "rem":
            members.pop(raft_id, None)
    return members


REMOVED_MAX = 16_384
"""Raft ids of removed members that are remembered, the latest: they are random and made anew at each join, so one
that is older can only come back with a machine that slept through as many changes."""


def removed_after(
    base: Sequence[str], changes: Iterable[tuple[int, MemberChange]], *, beyond: int, up_to: int | None = None
) -> tuple[str, ...]:
    """Return the raft ids removed so far, oldest first, once the changes are made as in `after`.

    They travel in every snapshot (`SnapshotHeader.removed`), so that no restart, compaction or new member forgets
    them: a wiped or removed member never comes back under its id. The engine refuses to add one again, its
    connections are refused, and the guard does not listen to it.
    """
    gone = dict.fromkeys(base)
    for index, change in changes:
        if change.kind == "rem" and index > beyond and (up_to is None or index <= up_to):
            gone.setdefault(change.member.raft_id)
    return tuple(gone)[-REMOVED_MAX:]


def majority(count: int) -> int:
    """Return how many of `count` voters are needed."""
    return count // 2 + 1
