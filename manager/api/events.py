"""Control.Events: what happened as far as this manager remembers, and what happens, for people who follow."""

from collections.abc import AsyncIterator

from pyswarm.manager.explain.happenings import KINDS, happenings
from pyswarm.manager.store.store import Commit, Store, Subscription
from pyswarm.proto.clock import Clock
from pyswarm.proto.errors import InvalidArgument, VersionTooOld
from pyswarm.proto.v1 import control_pb2 as pb

QUEUE_LIMIT = 16_384


async def tell_events(store: Store, request: pb.EventsRequest, clock: Clock) -> AsyncIterator[pb.ClusterEvent]:
    """Yield a message without a type, whose moment is since when this manager remembers, then one per event.

    Ends by itself when `until` is a moment of the past.

    Raises:
        InvalidArgument: the request names a kind that there is not.
        Overrun: the caller does not keep up.
    """
    unknown = sorted(set(request.kinds) - set(KINDS))
    if unknown:
        raise InvalidArgument(f"there are no events of {', '.join(unknown)}", remedy=f"Types are {', '.join(KINDS)}.")
    kinds = set(request.kinds) or set(KINDS)
    ends_now = 0 < request.until <= clock.now()
    remembered_since, subscription = _follow(store, from_the_past=request.since > 0 or ends_now)
    with subscription:
        yield pb.ClusterEvent(at=remembered_since)
        last_at = remembered_since
        while not ends_now or subscription.waiting:
            commit = await anext(subscription)
            is_past = ends_now or bool(subscription.waiting)
            for message in _messages(commit, kinds, last_at if is_past else clock.now()):
                last_at = message.at
                if message.at >= request.since and not 0 < request.until < message.at:
                    yield message


def _follow(store: Store, *, from_the_past: bool) -> tuple[float, Subscription]:
    """Return since when the manager remembers, and a subscription from then or from now on."""
    while from_the_past and (commits := store.history()):
        oldest = min((at for event in commits[0].events if (at := event.object.updated_at)), default=0.0)
        try:
            return oldest, store.watch_after(commits[0].version - 1, limit=QUEUE_LIMIT)
        except VersionTooOld:
            continue  # it was dropped in this moment
    _, subscription = store.view_and_watch(limit=QUEUE_LIMIT)
    return 0.0, subscription


def _messages(commit: Commit, kinds: set[str], otherwise_at: float) -> list[pb.ClusterEvent]:
    """Return the events of a commit; one that deletes has no moment of its own."""
    moments = [event.object.updated_at for event in commit.events if event.action != "delete"]
    at = max(moments, default=0.0) or otherwise_at
    return [
        pb.ClusterEvent(type=h.type, action=h.action, id=h.id, attributes=h.attributes, at=at, index=commit.version)
        for h in happenings(commit.events, commit.snapshot)
        if h.type in kinds
    ]
