"""The log broker: brings the output of tasks from the nodes that hold it to whoever asked.

A client's subscription names tasks; the broker tells each node that holds some of them (over the node's
`ListenSubscriptions` stream), the node publishes, the broker hands on. Lives on the leader and keeps nothing: when
leadership is lost, streams end and clients ask again. A slow client slows the nodes that publish to it, nobody else.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from pyswarm.manager.api.selection import find_services
from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import InvalidArgument, NotFound
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.states import NodeState, TaskState
from pyswarm.proto.rpc.identity import current_caller
from pyswarm.proto.v1 import logs_pb2 as pb
from pyswarm.proto.v1 import logs_pb2_grpc

log = get_logger(__name__)

LINES_QUEUED_MAX = 1024
"""Lines waiting for one client before its publishers are held back."""

LISTENING_SECONDS_MAX = 5.0
"""How long a client waits for a node that is up and does not listen, as after a change of leader."""

SUBSCRIPTIONS_QUEUED_MAX = 1024
"""Instructions waiting for one node; a node that reads none of so many is dropped and must listen again."""


class _Subscription:
    """One client's wish, the nodes that still publish for it, and the lines on their way.

    At most `LINES_QUEUED_MAX` lines wait; the end marker needs no room, so ending never blocks.
    """

    def __init__(self, subscription_id: str, options: pb.LogOptions) -> None:
        self.id = subscription_id
        self.options = options
        self.publishing: set[str] = set()
        self.awaited: dict[str, pb.LogSubscription] = {}
        """What nodes will be told that are up and do not listen yet."""
        self.task_ids: set[str] = set()
        self._lines: asyncio.Queue[pb.LogMessage | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(LINES_QUEUED_MAX)
        self._is_closed = False

    async def put(self, line: pb.LogMessage) -> None:
        """Queue a line, waiting for room. Raises NotFound once the reader is gone."""
        await self._room.acquire()
        if self._is_closed:
            self._room.release()  # wakes the next one that waits for a reader that is gone
            raise NotFound("nobody reads these logs any more")
        self._lines.put_nowait(line)

    def end(self) -> None:
        """Let the reader finish what is queued and stop."""
        self._lines.put_nowait(None)

    def close(self) -> None:
        """The reader is gone."""
        self._is_closed = True
        self._room.release()

    def add_note(self, note: pb.LogMessage) -> None:
        """Queue a remark for the reader: few for each node, so they need no room."""
        self._lines.put_nowait(note)

    async def lines(self) -> AsyncIterator[pb.LogMessage]:
        while (line := await self._lines.get()) is not None:
            self._room.release()
            yield line


class LogBroker:
    """Matches subscriptions and nodes; shared by the two servicers below."""

    def __init__(self, *, store: Store, entropy: Entropy) -> None:
        self._store = store
        self._entropy = entropy
        self._subscriptions: dict[str, _Subscription] = {}
        self._listeners: dict[str, asyncio.Queue[pb.LogSubscription | None]] = {}

    # -- the client's side

    async def subscribe(self, request: pb.SubscribeLogsRequest) -> AsyncIterator[pb.LogMessage]:
        """Yield the lines of the wanted tasks; without `follow`, end when every node has sent what it has."""
        seen, commits = self._store.view_and_watch({"task"})
        with commits:
            tasks = _wanted(seen, request)
            subscription = _Subscription(self._entropy.new_id(), request.options)
            self._subscriptions[subscription.id] = subscription
            follower: asyncio.Task[None] | None = None
            patience = asyncio.get_running_loop().call_later(LISTENING_SECONDS_MAX, self._wait_no_longer, subscription)
            try:
                self._ask(seen, subscription, tasks)
                if request.options.follow:
                    follower = asyncio.create_task(self._follow(subscription, commits, request))
                elif not subscription.publishing and not subscription.awaited:
                    subscription.end()
                async for line in subscription.lines():
                    yield line
            finally:
                subscription.close()
                patience.cancel()
                if follower is not None:
                    follower.cancel()
                del self._subscriptions[subscription.id]
                for node_id in subscription.publishing:
                    self._tell(node_id, pb.LogSubscription(id=subscription.id, close=True))

    def _ask(self, seen: Snapshot, subscription: _Subscription, tasks: Iterable[Task]) -> None:
        """Tell the nodes of `tasks` to publish; note those that are down, wait for those that do not listen yet."""
        by_node: dict[str, list[str]] = {}
        for task in tasks:
            if task.node_id and task.id not in subscription.task_ids:
                subscription.task_ids.add(task.id)
                by_node.setdefault(task.node_id, []).append(task.id)
        for node_id, task_ids in sorted(by_node.items()):
            order = pb.LogSubscription(id=subscription.id, task_ids=task_ids, options=subscription.options)
            node = seen.node(node_id)
            if self._tell(node_id, order):
                subscription.publishing.add(node_id)
            elif node is not None and node.status.state is NodeState.READY:
                subscription.awaited[node_id] = order
            else:
                subscription.add_note(_missing(seen, node_id))

    def _wait_no_longer(self, subscription: _Subscription) -> None:
        for node_id in sorted(subscription.awaited):
            subscription.add_note(_missing(self._store.view, node_id))
        subscription.awaited.clear()
        self._end_when_complete(subscription)

    async def _follow(self, subscription: _Subscription, commits: Any, request: pb.SubscribeLogsRequest) -> None:
        """Extend a following subscription to tasks that are assigned while it lasts."""
        try:
            async for commit in commits:
                fresh = [
                    event.object
                    for event in commit.events
                    if isinstance(event.object, Task)
                    and event.action != "delete"
                    and event.object.state >= TaskState.ASSIGNED
                    and event.object.service_id in _service_ids(commit.snapshot, request)
                ]
                self._ask(commit.snapshot, subscription, fresh)
        finally:
            # However following ended, the reader must not wait for ever.
            subscription.end()

    def _tell(self, node_id: str, order: pb.LogSubscription) -> bool:
        listener = self._listeners.get(node_id)
        if listener is None:
            return False
        if listener.qsize() >= SUBSCRIPTIONS_QUEUED_MAX:
            self._drop(node_id, listener)
            return False
        listener.put_nowait(order)
        return True

    def end_all(self) -> None:
        """Leadership was lost: end every stream, so that clients and nodes turn to the new leader."""
        for node_id, listener in list(self._listeners.items()):
            self._drop(node_id, listener)
        for subscription in self._subscriptions.values():
            subscription.end()

    # -- the node's side

    async def listen(self, node_id: str) -> AsyncIterator[pb.LogSubscription]:
        """Yield what the node shall publish. A second call by the same node ends the first."""
        if (old := self._listeners.get(node_id)) is not None:
            self._drop(node_id, old)
        # One place more than the bound, so that the end marker always fits.
        orders: asyncio.Queue[pb.LogSubscription | None] = asyncio.Queue(SUBSCRIPTIONS_QUEUED_MAX + 1)
        self._listeners[node_id] = orders
        self._ask_again(node_id)
        try:
            while (order := await orders.get()) is not None:
                yield order
        finally:
            if self._listeners.get(node_id) is orders:
                self._drop(node_id, orders)

    def _ask_again(self, node_id: str) -> None:
        """A node that comes (back) publishes for those who wait for it, and who follow tasks it holds."""
        held = {task.id for task in self._store.view.tasks_of_node(node_id)}
        for subscription in self._subscriptions.values():
            if (awaited := subscription.awaited.pop(node_id, None)) is not None:
                self._tell(node_id, awaited)
                subscription.publishing.add(node_id)
                continue
            task_ids = sorted(subscription.task_ids & held)
            if task_ids and subscription.options.follow and node_id not in subscription.publishing:
                options = pb.LogOptions(follow=True, tail=0)
                self._tell(node_id, pb.LogSubscription(id=subscription.id, task_ids=task_ids, options=options))
                subscription.publishing.add(node_id)

    def _drop(self, node_id: str, listener: asyncio.Queue[pb.LogSubscription | None]) -> None:
        listener.put_nowait(None)
        self._listeners.pop(node_id, None)
        for subscription in self._subscriptions.values():
            if node_id in subscription.publishing:
                subscription.add_note(_note(self._store.view, node_id, "has lost its connection: logs may be missing"))
                self._has_published(subscription, node_id)

    async def publish(self, node_id: str, messages: AsyncIterator[pb.PublishLogsMessage]) -> None:
        """Hand lines on to their subscriptions. Lines of tasks that are not the node's are refused."""
        async for message in messages:
            subscription = self._subscriptions.get(message.subscription_id)
            if subscription is None:
                raise NotFound("nobody reads these logs any more")
            for line in message.messages:
                task = self._store.view.task(line.task_id)
                if line.task_id not in subscription.task_ids or (task is not None and task.node_id != node_id):
                    log.warning("logs of a foreign task refused", node=node_id, task=line.task_id)
                    continue
                line.node_id = node_id
                await subscription.put(line)
            if message.done:
                self._has_published(subscription, node_id)

    def _has_published(self, subscription: _Subscription, node_id: str) -> None:
        subscription.publishing.discard(node_id)
        self._end_when_complete(subscription)

    def _end_when_complete(self, subscription: _Subscription) -> None:
        if not subscription.publishing and not subscription.awaited and not subscription.options.follow:
            subscription.end()


def _missing(seen: Snapshot, node_id: str) -> pb.LogMessage:
    return _note(seen, node_id, "is not connected: its logs are missing")


def _note(seen: Snapshot, node_id: str, what: str) -> pb.LogMessage:
    node = seen.node(node_id)
    name = node.description.hostname if node is not None and node.description.hostname else node_id
    return pb.LogMessage(node_id=node_id, note=f"node {name} {what}")


def _service_ids(seen: Snapshot, request: pb.SubscribeLogsRequest) -> set[str]:
    return {service.id for service in find_services(seen, request.service_ids)} if request.service_ids else set()


def _wanted(seen: Snapshot, request: pb.SubscribeLogsRequest) -> list[Task]:
    if not request.service_ids and not request.task_ids:
        raise InvalidArgument("no service or task given", remedy="Name a service or a task.")
    tasks = [task for sid in sorted(_service_ids(seen, request)) for task in seen.tasks_of_service(sid)]
    for wanted in request.task_ids:
        found = [task for task in seen.tasks() if task.id.startswith(wanted)]
        if len(found) != 1:
            raise NotFound(f"no such task: {wanted}" if not found else f"{wanted} names {len(found)} tasks")
        tasks += found
    return tasks


class LogsServicer(logs_pb2_grpc.LogsServicer):
    """What clients call."""

    def __init__(self, broker: LogBroker, consensus: Consensus) -> None:
        self._broker = broker
        self._consensus = consensus

    async def SubscribeLogs(self, request: pb.SubscribeLogsRequest, context: Any) -> AsyncIterator[pb.LogMessage]:
        await self._consensus.read_barrier()
        async for line in self._broker.subscribe(request):
            yield line


class LogBrokerServicer(logs_pb2_grpc.LogBrokerServicer):
    """What agents call; the node is the one of the certificate."""

    def __init__(self, broker: LogBroker) -> None:
        self._broker = broker

    async def ListenSubscriptions(
        self, request: pb.ListenSubscriptionsRequest, context: Any
    ) -> AsyncIterator[pb.LogSubscription]:
        async for order in self._broker.listen(current_caller().node_id):
            yield order

    async def PublishLogs(
        self, request_iterator: AsyncIterator[pb.PublishLogsMessage], context: Any
    ) -> pb.PublishLogsResponse:
        await self._broker.publish(current_caller().node_id, request_iterator)
        return pb.PublishLogsResponse()
