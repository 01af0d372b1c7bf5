"""What a follower does with an append: the paper's rule, which the core does not follow by itself (pure).

The core cuts its log behind the append's previous entry even when what follows there is the same, so a late or
repeated append would remove acknowledged entries. Here an append is reduced to what is new: entries that are in
the log already are passed over, and the log is cut only where an entry's term differs.
"""

from typing import Protocol

from msgspec import Struct

from pyswarm.manager.raft.codec import Append, BadMessage, Entry
from pyswarm.manager.raft.commands import check
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.proto.errors import Internal


class Log(Protocol):
    @property
    def first_index(self) -> int: ...

    @property
    def last_index(self) -> int: ...

    def term_at(self, index: int) -> int | None: ...


class LogDiverged(Internal):
    """Two members disagree about a committed entry. Going on would spread it."""

    remedy = (
        "Stop this manager and keep its state for the report. Remove the node (`pyswarm node rm --force`), clear its "
        "state and let it join again."
    )


class Suffix(Struct, frozen=True):
    """Deliver `entries` behind (`prev_index`, `prev_term`), which is in the log; only then does anything of the log
    go, and only because it conflicts. Afterwards the log equals the leader's up to `covered`; no more is known."""

    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    covered: int


class Rewind(Struct, frozen=True):
    """The append does not fit: the leader must go on from `next_index`."""

    next_index: int


def check_append(message: Append) -> None:
    """Refuse an append that no leader can have sent. Raises BadMessage."""
    index, term = message.prev_index, message.prev_term
    for command, entry_index, entry_term in message.entries:
        if entry_index != index + 1 or not term <= entry_term <= message.term:
            raise BadMessage(f"entry {entry_index} of term {entry_term} follows entry {index} of term {term}")
        check(command)
        index, term = entry_index, entry_term


def fit(message: Append, log: Log, *, committed: int, rules: Rules = ALL_RULES) -> Suffix | Rewind:
    """Decide how `message` fits the log, whose entries up to `committed` will never change.

    Raises:
        LogDiverged: the leader holds another entry where this member has a committed one.
    """
    prev_index, prev_term, entries = message.prev_index, message.prev_term, message.entries
    covered = entries[-1][1] if entries else prev_index

    if prev_index < log.first_index:
        # What lies before our log is in our snapshot, hence committed, hence the same.
        skipped = log.first_index - prev_index
        entries = entries[skipped:]
        prev_index = log.first_index
        prev_term = log.term_at(prev_index) or 0
        covered = max(covered, prev_index)
    elif prev_index > log.last_index:
        return Rewind(log.last_index + 1)
    elif log.term_at(prev_index) != prev_term:
        if prev_index <= committed:
            raise LogDiverged(
                f"entry {prev_index} is committed here with term {log.term_at(prev_index)}, "
                f"the leader of term {message.term} has it with term {prev_term}"
            )
        # The first entry that may differ is the one behind the committed ones: one step back, not many.
        return Rewind(committed + 1 if rules.rewind_to_committed else prev_index)

    if not rules.keep_matching_tail:
        return Suffix(prev_index, prev_term, entries, covered)
    known = 0
    for _, index, term in entries:
        ours = log.term_at(index)
        if ours is None:
            break
        if ours != term:
            if index <= committed:
                raise LogDiverged(
                    f"entry {index} is committed here with term {ours}, "
                    f"the leader of term {message.term} has it with term {term}"
                )
            break
        known += 1
    fresh = entries[known:]
    if fresh:
        before = entries[known - 1] if known else (b"", prev_index, prev_term)
        return Suffix(before[1], before[2], fresh, covered)
    # All of it is here. The core would cut whatever follows, so it is shown the end of the log instead.
    return Suffix(log.last_index, log.term_at(log.last_index) or 0, (), covered)
