"""Who is to be told of which commit: subscriptions, found by what they asked for.

A commit costs as much as the events in it and the subscriptions that get one of them: those that asked for other nodes,
services or ids are never looked at. What the events of a commit are about is `aspects_of`; a subscription is filed
under each of its selectors. Keeps no commits (history.py does) and no state.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeVar

from msgspec import Struct

from pyswarm.manager.store.changes import Kind
from pyswarm.manager.store.transition import Event
from pyswarm.manager.store.watch import Commit, Overrun, Subscription
from pyswarm.proto.model.objects import Object, Revision, Task

K = TypeVar("K")
By = Literal["", "id", "node", "service"]


class Selector(Struct, frozen=True):
    """Events of one kind: all of them, or those of one id, or those about one node's or service's objects.

    `by` "node" selects tasks by the node they are (or were) assigned to, "service" tasks and revisions by the service
    they belong to.
    """

    kind: Kind
    by: By = ""
    value: str = ""


Followers = dict[Subscription, None]
"""Subscriptions in the order in which they came."""


class Fanout:
    """The present subscriptions. Not safe against threads by itself: the store holds its lock."""

    def __init__(self) -> None:
        self._selectors: dict[Subscription, frozenset[Selector]] = {}
        # Followers of whole kinds (the leader's loops) are few and want much: sorted out once for each set of kinds.
        self._broad: dict[frozenset[Selector], Followers] = {}
        # The others are many and want little: found by what an event is about.
        self._narrow: dict[Selector, Followers] = {}
        self._ways_in_use: Counter[tuple[Kind, By]] = Counter()

    def __len__(self) -> int:
        return len(self._selectors)

    def add(self, subscription: Subscription, selectors: frozenset[Selector]) -> None:
        """Have `subscription` told of what any of `selectors` selects."""
        self._selectors[subscription] = selectors
        if _are_broad(selectors):
            self._broad.setdefault(selectors, {})[subscription] = None
            return
        for selector in selectors:
            self._narrow.setdefault(selector, {})[subscription] = None
            self._ways_in_use[selector.kind, selector.by] += 1

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription; it may have been forgotten already."""
        selectors = self._selectors.pop(subscription, frozenset())
        if _are_broad(selectors):
            _take_out(self._broad, selectors, subscription)
            return
        for selector in selectors:
            _take_out(self._narrow, selector, subscription)
            self._ways_in_use[selector.kind, selector.by] -= 1

    def deliver(self, commit: Commit) -> None:
        """Give each subscription those events of the commit that it asked for; forget those that cannot take more."""
        lost = [
            subscription
            for part, followers in self._parts(commit)
            for subscription in followers
            if not subscription.deliver(part)
        ]
        for subscription in lost:
            self.remove(subscription)

    def fail_all(self, error: Overrun) -> None:
        """Tell every subscription that it has to start again, and forget them."""
        subscriptions = list(self._selectors)
        for subscription in subscriptions:
            self.remove(subscription)
            subscription.fail(error)

    def _parts(self, commit: Commit) -> Iterator[tuple[Commit, Iterable[Subscription]]]:
        for selectors, followers in self._broad.items():
            kinds = {selector.kind for selector in selectors}
            events = tuple(event for event in commit.events if event.kind in kinds)
            if events:
                yield _narrowed(commit, events), followers
        if not self._narrow:
            return
        wanted: dict[Subscription, list[Event]] = {}
        for event in commit.events:
            for selector in aspects_of(event, self._ways_in_use):
                for subscription in self._narrow.get(selector, ()):
                    told = wanted.setdefault(subscription, [])
                    # A subscription with two selectors that fit one event gets it once.
                    if not told or told[-1] is not event:
                        told.append(event)
        for subscription, told in wanted.items():
            yield _narrowed(commit, tuple(told)), (subscription,)


def select(commit: Commit, selectors: frozenset[Selector]) -> Commit | None:
    """Return the commit with those events that any of `selectors` selects; None when there are none."""
    events = tuple(event for event in commit.events if any(s in selectors for s in aspects_of(event, ALL_WAYS)))
    return _narrowed(commit, events) if events else None


def aspects_of(event: Event, ways: Mapping[tuple[Kind, By], int]) -> Iterator[Selector]:
    """Yield every selector that selects the event, of those `ways` of selecting that are used at all."""
    kind = event.kind
    for by in _WAYS[kind]:
        if not ways.get((kind, by)):
            continue
        now = _value(event.object, by)
        yield Selector(kind, by, now)
        if event.old is not None and (before := _value(event.old, by)) != now:
            yield Selector(kind, by, before)


def _narrowed(commit: Commit, events: tuple[Event, ...]) -> Commit:
    return commit if len(events) == len(commit.events) else Commit(commit.version, events, commit.snapshot)


def _are_broad(selectors: frozenset[Selector]) -> bool:
    return all(not selector.by for selector in selectors)


def _take_out(filed: dict[K, Followers], key: K, subscription: Subscription) -> None:
    followers = filed.get(key)
    if followers is not None:
        followers.pop(subscription, None)
        if not followers:
            del filed[key]


_WAYS: dict[Kind, tuple[By, ...]] = {
    "cluster": ("", "id"),
    "node": ("", "id"),
    "service": ("", "id"),
    "revision": ("", "id", "service"),
    "task": ("", "id", "node", "service"),
    "secret": ("", "id"),
    "config": ("", "id"),
    "stack": ("", "id"),
}

ALL_WAYS: Mapping[tuple[Kind, By], int] = {(kind, by): 1 for kind, ways in _WAYS.items() for by in ways}

KINDS: tuple[Kind, ...] = tuple(_WAYS)


def _value(object: Object, by: By) -> str:
    if by == "id":
        return object.id
    if by == "node" and isinstance(object, Task):
        return object.node_id
    if by == "service" and isinstance(object, Task | Revision):
        return object.service_id
    return ""
