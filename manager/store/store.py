"""The replicated object store of one manager: the state machine that consensus drives, and its readers' door.

Holds one reference to an immutable state and swaps it at each entry. What an entry does is decided in
apply.py; this module only keeps the present state, and tells followers. Writing goes through writer.py.
"""

import threading
from collections.abc import Collection, Iterable, Iterator

from pyswarm.manager.store.apply import EMPTY, Invalid, Outcome, State, apply_entry, encode_outcome, state_digest
from pyswarm.manager.store.changes import Kind
from pyswarm.manager.store.checkpoints import Checkpoint, Checkpoints
from pyswarm.manager.store.fanout import KINDS, Fanout, Selector, select
from pyswarm.manager.store.history import HISTORY_EVENTS, History
from pyswarm.manager.store.pieces import read_pieces, write_pieces
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.transition import Event
from pyswarm.manager.store.watch import QUEUE_LIMIT, Commit, Overrun, Restored, Subscription
from pyswarm.proto.log import get_logger

__all__ = ["Commit", "Event", "Overrun", "Restored", "Selector", "Store", "Subscription"]

log = get_logger(__name__)


class Store:
    """Implements `manager.raft.port.StateMachine`. Consensus may call it from a thread of its own."""

    def __init__(self, *, history_events: int = HISTORY_EVENTS) -> None:
        self._state: State = EMPTY
        # Held for microseconds: makes "the view and every commit after it" one step against an apply in
        # another thread. Never held while anything is awaited or proposed.
        self._lock = threading.Lock()
        self._fanout = Fanout()
        self._history_events = history_events
        self._history = History(events_max=history_events)
        self._checkpoints = Checkpoints()

    @property
    def view(self) -> Snapshot:
        """The present state of this manager, at no cost; behind the leader's by what is still on its way."""
        return self._state.view

    def view_and_watch(
        self,
        kinds: Collection[Kind] | None = None,
        *,
        selectors: Iterable[Selector] = (),
        limit: int = QUEUE_LIMIT,
    ) -> tuple[Snapshot, Subscription]:
        """Return the present view and a subscription to every later commit with events of `kinds` or `selectors`.

        Neither means all events. Following a node, a service or an id by a selector costs nothing while others
        change. Call it on the event loop that will iterate, and close the subscription (`with`). When it raises
        `Overrun`, start again with a new view.
        """
        wanted = _selectors(kinds, selectors)
        with self._lock:
            view = self._state.view
            subscription = Subscription(after=view.version, limit=limit, on_close=self._forget)
            self._fanout.add(subscription, wanted)
            return view, subscription

    def watch_after(
        self,
        version: int,
        kinds: Collection[Kind] | None = None,
        *,
        selectors: Iterable[Selector] = (),
        limit: int = QUEUE_LIMIT,
    ) -> Subscription:
        """Return a subscription to every commit after `version`, those that have happened already included.

        A version that this manager has not reached yet is waited for: it may be behind the one that was read.

        Raises:
            VersionTooOld: commits after `version` are not remembered any more.
        """
        wanted = _selectors(kinds, selectors)
        with self._lock:
            missed = [part for c in self._history.after(version) if (part := select(c, wanted)) is not None]
            # What is remembered is bounded, so it may all wait at once, beside what comes then.
            subscription = Subscription(after=version, limit=limit + len(missed), on_close=self._forget)
            for commit in missed:
                subscription.deliver(commit)
            self._fanout.add(subscription, wanted)
            return subscription

    @property
    def followers(self) -> int:
        """How many subscriptions are open."""
        return len(self._fanout)

    def history_after(self, version: int) -> Iterator[Commit]:
        """Return what is remembered of the commits after `version`; raises VersionTooOld as `watch_after`."""
        with self._lock:
            return iter(tuple(self._history.after(version)))

    def history(self) -> tuple[Commit, ...]:
        """Return all commits that are remembered, oldest first."""
        with self._lock:
            return tuple(self._history.after(self._history.floor))

    def outcome_of(self, client_id: str, sequence: int) -> Outcome | None:
        """Return what became of a writer's entry, None when it has not been applied here (or is forgotten)."""
        known = self._state.writers.get(client_id)
        return known.outcomes.get(sequence) if known is not None else None

    def digest(self) -> str:
        """Return a fingerprint of the state: two managers at one version must agree. Cheap at any size."""
        return state_digest(self._state)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return the digests of the state at the latest checkpoints, oldest first."""
        with self._lock:
            return tuple(self._checkpoints)

    # -- what consensus calls

    def apply(self, index: int, payload: bytes) -> bytes:
        """Apply one committed entry and return its encoded outcome; never raises."""
        with self._lock:
            before = self._state.view.version
            state, outcome, events = apply_entry(self._state, index, payload)
            self._state = state
            if self._checkpoints.is_due(before, index):
                self._checkpoints.add(Checkpoint(index, state_digest(state)))
            if events:
                commit = Commit(index, events, state.view)
                self._history.append(commit)
                self._fanout.deliver(commit)
        if isinstance(outcome, Invalid):
            log.error("entry refused", index=index, why=outcome.message)
        return encode_outcome(outcome)

    def snapshot(self) -> Iterable[bytes]:
        """Return the state as pieces; they may be consumed later and elsewhere, whatever is applied meanwhile."""
        return write_pieces(self._state)

    def backup(self) -> tuple[int, Iterable[bytes]]:
        """Return the version of the present state and its pieces, as `restore` takes them."""
        state = self._state
        return state.view.version, write_pieces(state)

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        """Replace the whole state; every follower is told to start again.

        Raises:
            SnapshotDamaged: the pieces are no intact snapshot; the state is as it was.
        """
        state = read_pieces(index, pieces)
        with self._lock:
            self._state = state
            self._history = History(state.view.version, events_max=self._history_events)
            self._checkpoints.clear()
            self._fanout.fail_all(Restored(f"the store was restored from a snapshot at version {state.view.version}"))

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._fanout.remove(subscription)


def _selectors(kinds: Collection[Kind] | None, selectors: Iterable[Selector]) -> frozenset[Selector]:
    chosen = frozenset(selectors)
    if kinds is None and not chosen:
        kinds = KINDS
    return chosen | {Selector(kind) for kind in kinds or ()}
