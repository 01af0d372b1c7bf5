"""Control.Watch: the store's commits as a stream of (action, kind, id), filtered by what the caller asked for."""

from collections.abc import AsyncIterator, Iterable

from pyswarm.manager.store.changes import Kind
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Event, Store
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import Node, Object, Revision, Service, Task
from pyswarm.proto.v1 import control_pb2 as pb

WATCHABLE: tuple[Kind, ...] = ("node", "service", "task")
"""Kinds people may watch. The cluster object holds the CA key; revisions say nothing that a service does not."""


async def watch_events(store: Store, request: pb.WatchRequest) -> AsyncIterator[pb.WatchEvents]:
    """Yield an empty message at once, then one per commit with a matching event.

    The first message tells that the watch is in place: what the caller reads after it, plus the
    events that follow, has no gap. Raises Overrun when the caller does not keep up.
    """
    unknown = sorted(set(request.kinds) - set(WATCHABLE))
    if unknown:
        raise InvalidArgument(f"cannot watch {', '.join(unknown)}", remedy=f"Watch any of {', '.join(WATCHABLE)}.")
    kinds = frozenset(kind for kind in WATCHABLE if not request.kinds or kind in request.kinds)
    seen, subscription = store.view_and_watch(kinds)
    with subscription:
        yield pb.WatchEvents(version=seen.version)
        async for commit in subscription:
            events = list(_matching(commit.events, commit.snapshot, request))
            if events:
                yield pb.WatchEvents(version=commit.version, events=events)


def _matching(events: Iterable[Event], seen: Snapshot, request: pb.WatchRequest) -> Iterable[pb.WatchEvent]:
    for event in events:
        if _wanted(event.object, seen, request):
            yield pb.WatchEvent(action=event.action, kind=event.kind, id=event.object.id)


def _wanted(subject: Object, seen: Snapshot, request: pb.WatchRequest) -> bool:
    service_id = subject.id if isinstance(subject, Service) else getattr(subject, "service_id", "")
    if request.service_id and service_id != request.service_id:
        return False
    if request.node_id:
        node_id = subject.id if isinstance(subject, Node) else subject.node_id if isinstance(subject, Task) else ""
        if node_id != request.node_id:
            return False
    if request.stack:
        service = subject if isinstance(subject, Service) else seen.service(service_id)
        return service is not None and service.stack == request.stack
    return not isinstance(subject, Revision)
