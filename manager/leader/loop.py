"""The leader's loops: entered when this manager is elected and caught up, cancelled at once when it is not.

Commits mark keys dirty; a pass takes the view, asks the pure deciders about each dirty key, and writes their plans.
What an event said does not matter, only where it pointed: missed and doubled events are harmless. Moments at which a
decision may come out differently without a write come back as `look_again_at` and are kept in one timer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from pyswarm.manager.leader.aside import Aside, at_once
from pyswarm.manager.leader.placing import Placing
from pyswarm.manager.leader.roles import change_role, next_role_change
from pyswarm.manager.orchestrator.late import is_news, still_valid
from pyswarm.manager.orchestrator.overcommit import relieve
from pyswarm.manager.orchestrator.reaper import reap
from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.batch import parts
from pyswarm.manager.store.changes import Plan
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Commit, Event, Overrun, Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import NotLeader, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Node, Revision, Service, Task
from pyswarm.proto.model.states import Role

log = get_logger(__name__)

RETRY_SECONDS = 0.5
"""Pause before a step that failed for a passing reason is tried again."""


NODES_AT_ONCE = 50
"""Nodes looked at before others get their turn."""

EVENTS_IN_A_TURN = 200
"""Events looked at before others get their turn: thousands may have come during a long decision."""

TASKS_IN_A_TURN = 1_000
"""Tasks of services decided on before others get their turn: some hundredths of a second."""

REST_SECONDS_MAX = 0.5
"""After a round of decisions as long a rest as they took, up to this: what happens meanwhile is decided on at once,
and no more than half of the event loop is the decisions'."""

SPENT_SECONDS_MAX = 0.1
"""What one decision counts for in that: a longer one was taken beside the event loop."""

REST_SECONDS_MIN = 0.01
"""No rest after a round that took less: small services are decided on as things happen."""


@dataclass
class _Dirty:
    """What must be looked at, and when something must be looked at by itself."""

    services: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    """Nodes that may have less than is reserved on them."""
    roles: bool = False
    moments: dict[str, float] = field(default_factory=dict)

    def everything(self, seen: Snapshot) -> None:
        self.services |= {service.id for service in seen.services()} | seen.services_with_tasks()
        self.services |= {r.service_id for r in seen.revisions()}
        self.nodes |= {node.id for node in seen.nodes()}
        self.roles = True

    def after(self, commit: Commit) -> None:
        for event in commit.events:
            subject = event.object
            if isinstance(subject, Service):
                self.services.add(subject.id)
            elif isinstance(subject, Revision) or (isinstance(subject, Task) and _is_news(event)):
                self.services.add(subject.service_id)
            elif isinstance(subject, Node):
                self._after_node(subject, event.old, commit.snapshot)

    def _after_node(self, node: Node, old: object, seen: Snapshot) -> None:
        if isinstance(old, Node) and _as_placement_sees(old) == _as_placement_sees(node):
            return
        self.roles |= node.spec.role not in (Role.UNSET, node.role)
        if not isinstance(old, Node) or old.description.resources != node.description.resources:
            self.nodes.add(node.id)
        self.services |= {task.service_id for task in seen.tasks_of_node(node.id)}
        self.services |= {s.id for s in seen.services() if s.spec.mode.is_per_node or s.spec.move_config.rebalances}

    def due(self, now: float) -> None:
        for service_id in [s for s, moment in self.moments.items() if moment <= now]:
            del self.moments[service_id]
            self.services.add(service_id)

    def next_moment(self) -> float | None:
        return min(self.moments.values(), default=None)

    def __bool__(self) -> bool:
        return bool(self.services) or bool(self.nodes) or self.roles


def _as_placement_sees(node: Node) -> tuple[object, ...]:
    return (node.spec, node.role, node.status.state, node.status.addr, node.description)


def _is_news(event: Event) -> bool:
    """Whether what happened to a task may change what is decided about its service."""
    old, new = event.old, event.object
    return event.action != "update" or not (isinstance(old, Task) and isinstance(new, Task)) or is_news(old, new)


class LeaderLoop:
    """Reconciles and reaps while this manager leads. Placing tasks is placing.py's."""

    def __init__(
        self, *, store: Store, writer: Writer, clock: Clock, entropy: Entropy, consensus: Consensus, aside: Aside
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._consensus = consensus
        self._aside = aside
        self._spent_seconds = 0.0
        """What this round's decisions have taken so far."""

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                await self._follow()
            except Overrun:
                log.warning("fell behind the store: looking at everything again")
            except (NotLeader, Unavailable) as error:
                # Cancelled soon if leadership is lost; otherwise a quorum is missing for the moment.
                log.warning("a decision could not be written", reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        dirty = _Dirty()
        seen, commits = self._store.view_and_watch(("service", "task", "node", "revision"))
        with commits:
            await self._aside(partial(dirty.everything, seen), tasks=seen.count("task"))
            while True:
                dirty.due(self._clock.now())
                if dirty:
                    await self._decide(dirty)
                    await self._rest()
                moment = dirty.next_moment()
                wait = None if moment is None else max(0.0, moment - self._clock.now())
                try:
                    async with asyncio.timeout(0 if dirty else wait):
                        batch = await commits.next_batch()
                except TimeoutError:
                    continue
                events = 0
                for commit in batch:
                    dirty.after(commit)
                    events += len(commit.events)
                    if events >= EVENTS_IN_A_TURN:
                        events = 0
                        await asyncio.sleep(0)

    async def _rest(self) -> None:
        spent, self._spent_seconds = self._spent_seconds, 0.0
        if spent > REST_SECONDS_MIN:
            await asyncio.sleep(min(spent, REST_SECONDS_MAX))

    async def _decide(self, dirty: _Dirty) -> None:
        """Make one round of decisions; each write marks what it touched, so rounds go on until nothing changes."""
        services, dirty.services = sorted(dirty.services), set()
        tasks = 0
        for service_id in services:
            tasks += self._store.view.count_of_service(service_id)
            await self._decide_service(service_id, dirty)
            if tasks >= TASKS_IN_A_TURN:
                tasks = 0
                await asyncio.sleep(0)  # heartbeats, and people at the API, do not wait for all services
        nodes, dirty.nodes = sorted(dirty.nodes), set()
        for number, node_id in enumerate(nodes):
            await self._decide_node(node_id, dirty)
            if number % NODES_AT_ONCE == NODES_AT_ONCE - 1:
                await asyncio.sleep(0)  # a new leader looks at all of them: others want their turn, too
        if dirty.roles:
            dirty.roles = False
            await self._about_roles(dirty)

    async def _decide_service(self, service_id: str, dirty: _Dirty) -> None:
        seen, began = self._store.view, self._clock.monotonic()
        decide = partial(self._about_service, seen, service_id, dirty)
        plan = await self._aside(decide, tasks=seen.count_of_service(service_id))
        self._spent_seconds += min(self._clock.monotonic() - began, SPENT_SECONDS_MAX)
        if await self._write_late(plan, service_id, seen) < len(plan.changes):
            # The world moved while we decided: its event may say nothing that is news, but ours must not get lost.
            dirty.services.add(service_id)

    async def _write_late(self, plan: Plan, service_id: str, seen: Snapshot) -> int:
        """Write what still holds of a plan about a service, decided on `seen`; return how many changes that was."""
        own: set[int] = set()
        written = 0
        left = still_valid(plan.changes, service_id, then=seen, now=self._store.view)
        while left:
            part = next(parts(left))
            try:
                own.add(await self._writer.write(part))
            except Conflict as conflict:
                log.debug("decision overtaken", kind=conflict.kind, id=conflict.id)
                holding = still_valid(left, service_id, then=seen, now=self._store.view, own=own)
                if holding == left:
                    break  # not a slot that moved: decided anew as a whole
                left = holding
            else:
                written += len(part)
                left = left[len(part) :]
        if written and plan.why:
            log.info("decided", subject=service_id, changes=written, why=plan.why[:300])
        return written

    def _about_service(self, seen: Snapshot, service_id: str, dirty: _Dirty) -> Plan:
        service = seen.service(service_id)
        now = self._clock.now()
        plan = Plan() if service is None else reconcile(seen, service, now=now, new_id=self._entropy.new_id)
        if plan.look_again_at is None:
            dirty.moments.pop(service_id, None)
        else:
            dirty.moments[service_id] = plan.look_again_at
        return plan if plan.changes else reap(seen, service_id, now=now)

    async def _decide_node(self, node_id: str, dirty: _Dirty) -> None:
        seen, began = self._store.view, self._clock.monotonic()
        node = seen.node(node_id)
        plan = Plan() if node is None else relieve(seen, node, now=self._clock.now())
        self._spent_seconds += self._clock.monotonic() - began
        for part in parts(plan.changes):
            try:
                await self._writer.write(part)
            except Conflict as conflict:
                log.debug("decision overtaken", kind=conflict.kind, id=conflict.id)
                dirty.nodes.add(node_id)
                return
        if plan.changes and plan.why:
            log.info("decided", subject=node_id, changes=len(plan.changes), why=plan.why[:300])

    async def _about_roles(self, dirty: _Dirty) -> None:
        node = next_role_change(self._store.view)
        if node is None:
            return
        try:
            await change_role(node, consensus=self._consensus, writer=self._writer)
        except SwarmError as error:
            log.warning("role change is waiting", node=node.id, reason=error.message)
            await asyncio.sleep(RETRY_SECONDS)
        dirty.roles = True


async def lead(
    *,
    store: Store,
    writer: Writer,
    clock: Clock,
    entropy: Entropy,
    consensus: Consensus,
    aside: Aside = at_once,
    also: Iterable[Callable[[], Awaitable[None]]] = (),
) -> None:
    """Run everything that lives while this manager leads, until cancelled; `also` are further loops.

    Long decisions are taken `aside`.
    """
    loop = LeaderLoop(store=store, writer=writer, clock=clock, entropy=entropy, consensus=consensus, aside=aside)
    placing = Placing(store=store, writer=writer, clock=clock, aside=aside)
    async with asyncio.TaskGroup() as group:
        group.create_task(loop.run(), name="leader-loop")
        group.create_task(placing.run(), name="placing")
        for run in also:
            group.create_task(_until_cancelled(run), name="leader-part")


async def _until_cancelled(run: Callable[[], Awaitable[None]]) -> None:
    await run()
