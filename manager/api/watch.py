"""Control.Watch: the store's commits as a stream of (action, kind, id), filtered by what the caller asked for.

The store is asked for no more than the caller wants, so that thousands of callers who each follow one node or service
cost nothing while others change; a stack is followed by looking at everything of the kinds asked for.
"""

from collections.abc import AsyncIterator, Iterable

from pyswarm.manager.store.changes import Kind
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Commit, Selector, Store, Subscription
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import Node, Object, Service, Task
from pyswarm.proto.v1 import control_pb2 as pb

WATCHABLE: tuple[Kind, ...] = ("node", "service", "task")
"""Kinds people may watch. The cluster object holds the CA key; revisions say nothing that a service does not."""


async def watch_events(store: Store, request: pb.WatchRequest) -> AsyncIterator[pb.WatchEvents]:
    """Yield an empty message at once, then one per commit with a matching event.

    The first message tells that the watch is in place: what the caller reads after it, plus the
    events that follow, has no gap. With `after_version` the gap-free view is the one the caller has already.

    Raises:
        InvalidArgument: the request names a kind that cannot be watched, or a negative version.
        VersionTooOld: what came after `after_version` is not remembered any more.
        Overrun: the caller does not keep up.
    """
    selectors = selectors_of(request)
    version, subscription = _follow(store, selectors, request.after_version)
    with subscription:
        yield pb.WatchEvents(version=version)
        async for commit in subscription:
            events = list(_matching(commit, request))
            if events:
                yield pb.WatchEvents(version=commit.version, events=events)


def selectors_of(request: pb.WatchRequest) -> frozenset[Selector]:
    """Return what to ask the store for: as little as contains everything the request wants.

    Raises:
        InvalidArgument: the request names a kind that cannot be watched, or a negative version.
    """
    unknown = sorted(set(request.kinds) - set(WATCHABLE))
    if unknown:
        raise InvalidArgument(f"cannot watch {', '.join(unknown)}", remedy=f"Watch any of {', '.join(WATCHABLE)}.")
    if request.after_version < 0:
        raise InvalidArgument(f"there is no version {request.after_version}", remedy="Give a list's version, or 0.")
    kinds = [kind for kind in WATCHABLE if not request.kinds or kind in request.kinds]
    if request.service_id:
        by_service = {
            "service": Selector("service", "id", request.service_id),
            "task": Selector("task", "service", request.service_id),
        }
        return frozenset(by_service[kind] for kind in kinds if kind in by_service)
    if request.node_id:
        by_node = {"node": Selector("node", "id", request.node_id), "task": Selector("task", "node", request.node_id)}
        return frozenset(by_node[kind] for kind in kinds if kind in by_node)
    return frozenset(map(Selector, kinds))


def _follow(store: Store, selectors: frozenset[Selector], after_version: int) -> tuple[int, Subscription]:
    if after_version:
        return after_version, store.watch_after(after_version, (), selectors=selectors)
    seen, subscription = store.view_and_watch((), selectors=selectors)
    return seen.version, subscription


def _matching(commit: Commit, request: pb.WatchRequest) -> Iterable[pb.WatchEvent]:
    for event in commit.events:
        if _is_wanted(event.object, commit.snapshot, request):
            yield pb.WatchEvent(action=event.action, kind=event.kind, id=event.object.id)


def _is_wanted(subject: Object, seen: Snapshot, request: pb.WatchRequest) -> bool:
    """Judge what the selectors let through: they hold one of a request's conditions, and never a stack's."""
    service_id = subject.id if isinstance(subject, Service) else subject.service_id if isinstance(subject, Task) else ""
    if request.service_id and service_id != request.service_id:
        return False
    if request.node_id:
        node_id = subject.id if isinstance(subject, Node) else subject.node_id if isinstance(subject, Task) else ""
        if node_id != request.node_id:
            return False
    if request.stack:
        service = subject if isinstance(subject, Service) else seen.service(service_id)
        return service is not None and service.stack == request.stack
    return True
