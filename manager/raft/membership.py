"""Who is a member: the snapshot's members and every change in the log behind it, committed or not (pure).

That is the rule of the Raft thesis: a change is in force as soon as it is in the log, also after a restart. A
member without a snapshot does not know its group: it is told by its first snapshot, and until then can only vote.
"""

from collections.abc import Iterable, Mapping

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
        if change.kind == "add":
            members[change.member.raft_id] = change.member
        else:
            members.pop(change.member.raft_id, None)
    return members


def majority(count: int) -> int:
    """Return how many of `count` voters are needed."""
    return count // 2 + 1
