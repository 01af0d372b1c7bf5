"""The scheduler on a store that changes under it: what waits is placed, and the table of nodes stays true."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import GIB, a_cluster, a_node, a_port, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.leader import placing as module
from pyswarm.manager.leader.placing import Placing
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.scheduler.nodes import NodeTable
from pyswarm.manager.scheduler.schedule import schedule
from pyswarm.manager.store.changes import Change, Create, Delete, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import Service, Task, TaskStatus
from pyswarm.proto.model.resources import GenericResource
from pyswarm.proto.model.states import Availability, NodeState, TaskState

WEB = a_service("web", version=0)
BIG = a_service("big", version=0, reserve_memory_bytes=5 * GIB)


class Placed:
    """A store with a scheduler at work on it."""

    def __init__(self) -> None:
        self.store = Store()
        self.consensus = SingleNodeConsensus(self.store)
        self.writer = Writer(self.consensus, self.store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
        self.placing = Placing(store=self.store, writer=self.writer, clock=SYSTEM_CLOCK)

    async def write(self, *changes: Change) -> None:
        await self.writer.write(changes)

    async def wait(self, *tasks: Task) -> None:
        await self.write(*map(Create, tasks))

    async def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        async with asyncio.timeout(5):
            seen, commits = self.store.view_and_watch()
            with commits:
                while not holds(seen):
                    seen = (await anext(commits)).snapshot
                return seen

    async def until_placed(self, *ids: str) -> list[str]:
        seen = await self.until(lambda seen: all(_task(seen, id).state is TaskState.ASSIGNED for id in ids))
        return [_task(seen, id).node_id for id in ids]


def _task(seen: Snapshot, id: str) -> Task:
    found = seen.task(id)
    assert found is not None
    return found


def waiting(id: str, service: Service = WEB, **more: object) -> Task:
    return a_task(id, service=service, state=TaskState.PENDING, version=0, **more)  # type: ignore[arg-type]


@pytest.fixture
async def placed() -> AsyncIterator[Placed]:
    placed = Placed()
    objects = [a_cluster(version=0), WEB, a_revision(WEB, version=0), BIG, a_revision(BIG, version=0)]
    await placed.write(*map(Create, objects))
    running = asyncio.create_task(placed.placing.run())
    yield placed
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_tasks_are_placed_as_they_come(placed: Placed):
    await placed.write(Create(a_node("n1", version=0)), Create(a_node("n2", version=0)))
    await placed.wait(waiting("t1", slot=1), waiting("t2", slot=2))
    assert sorted(await placed.until_placed("t1", "t2")) == ["n1", "n2"]
    await placed.wait(waiting("t3", slot=3))
    await placed.until_placed("t3")


async def test_more_tasks_than_one_round_takes_are_all_placed(placed: Placed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TASKS_PER_ROUND", 6)
    monkeypatch.setattr(module, "TASKS_IN_A_TURN", 3)
    await placed.write(*(Create(a_node(f"n{n}", version=0)) for n in range(4)))
    tasks = [waiting(f"t{slot:02}", slot=slot) for slot in range(20)]
    await placed.wait(*tasks)
    nodes = await placed.until_placed(*(task.id for task in tasks))
    assert [nodes.count(f"n{n}") for n in range(4)] == [5, 5, 5, 5]


async def test_what_goes_to_one_node_is_written_side_by_side(placed: Placed, monkeypatch: pytest.MonkeyPatch):
    """So that an entry concerns few nodes, and each of them is told once and not many times."""
    monkeypatch.setattr(module, "TASKS_IN_A_TURN", 3)
    await placed.write(*(Create(a_node(f"n{n}", version=0)) for n in range(4)))
    tasks = [waiting(f"t{slot:02}", slot=slot) for slot in range(12)]
    _, commits = placed.store.view_and_watch({"task"})
    await placed.wait(*tasks)
    await placed.until_placed(*(task.id for task in tasks))
    with commits:
        events = [event for commit in await commits.next_batch() for event in commit.events]
    nodes = [event.object.node_id for event in events if event.object.state is TaskState.ASSIGNED]
    assert nodes == [f"n{n}" for n in range(4) for _ in range(3)]


async def test_a_task_without_a_node_is_told_why_and_placed_when_one_comes(placed: Placed):
    await placed.wait(waiting("t1"))
    await placed.until(lambda seen: "the cluster has no nodes" in _task(seen, "t1").status.err)
    await placed.write(Create(a_node("n1", version=0)))
    assert await placed.until_placed("t1") == ["n1"]


async def test_a_task_that_lacked_room_is_placed_when_another_one_ends(placed: Placed):
    await placed.write(Create(a_node("n1", memory_bytes=8 * GIB, version=0)))
    await placed.wait(waiting("t1", BIG))
    await placed.until_placed("t1")
    await placed.wait(waiting("t2", BIG, slot=2))
    seen = await placed.until(lambda seen: "insufficient resources" in _task(seen, "t2").status.err)
    ended = replace(_task(seen, "t1"), status=TaskStatus(TaskState.FAILED, 1.0))
    await placed.write(Update(ended))
    assert await placed.until_placed("t2") == ["n1"]


async def test_a_node_that_is_made_active_again_takes_what_waits(placed: Placed):
    await placed.write(Create(a_node("n1", availability=Availability.PAUSE, version=0)))
    await placed.wait(waiting("t1"))
    seen = await placed.until(lambda seen: "not available" in _task(seen, "t1").status.err)
    node = seen.node("n1")
    assert node is not None
    await placed.write(Update(replace(node, spec=replace(node.spec, availability=Availability.ACTIVE))))
    assert await placed.until_placed("t1") == ["n1"]


async def test_a_decision_that_could_not_be_written_is_made_again_and_counted_once(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    await placed.write(Create(a_node("n1", memory_bytes=8 * GIB, version=0)))
    placed.consensus.lose_leadership()
    placed.consensus.lead_again()
    real, failures = placed.writer.write, iter([True])

    async def write(changes: tuple[Change, ...], **options: object) -> int:
        if next(failures, False):
            raise module.Unavailable("no quorum")
        return await real(changes, **options)  # type: ignore[arg-type]

    await placed.wait(waiting("t0"))
    await placed.until_placed("t0")
    monkeypatch.setattr(placed.writer, "write", write)
    failures = iter([True])
    await real((Create(waiting("t1", BIG)),))
    assert await placed.until_placed("t1") == ["n1"]


# -- the table follows the store exactly

PORT = a_service("port", version=0, ports=(a_port(8080),))
PIECES = a_service("pieces", version=0, reserve_generic={"gpu": 1, "licence": 1}, affinities=("service!=port",))
SERVICES = [WEB, BIG, PORT, PIECES]
MOVES = [TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED, TaskState.COMPLETE, TaskState.PENDING]

steps = st.one_of(
    st.tuples(st.just("task"), st.integers(0, 7), st.sampled_from(MOVES), st.integers(0, 3)),
    st.tuples(st.just("stop"), st.integers(0, 7), st.just(None), st.just(0)),
    st.tuples(st.just("delete"), st.integers(0, 7), st.just(None), st.just(0)),
    st.tuples(st.just("node"), st.integers(0, 3), st.sampled_from([NodeState.READY, NodeState.DOWN]), st.just(0)),
    st.tuples(st.just("remove"), st.integers(0, 3), st.just(None), st.just(0)),
    st.tuples(st.just("schedule"), st.integers(0, 1), st.just(None), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=40))
def test_a_table_that_follows_events_equals_one_made_anew(script: list[tuple[str, int, object, int]]):
    seen = Snapshot.of(a_cluster(), *SERVICES, *map(a_revision, SERVICES), version=1)
    table = NodeTable(seen)

    def apply(*changes: Change) -> None:
        nonlocal seen
        seen, events = seen.step(changes, version=seen.version + 1)
        for event in events:
            if isinstance(event.object, Task):
                old = event.old if isinstance(event.old, Task) else None
                table.task_changed(old, None if event.action == "delete" else event.object, seen)
            elif event.action == "delete":
                table.node_removed(event.object.id)
            else:
                table.node_changed(event.object, seen)  # type: ignore[arg-type]

    for what, number, state, where in script:
        task, node = seen.task(f"t{number}"), seen.node(f"n{number}")
        if what == "task":
            service = SERVICES[number % 4]
            node_id = f"n{where}" if state is not TaskState.PENDING else ""
            fresh = a_task(f"t{number}", service=service, slot=number, node=node_id, state=state, since=where)  # type: ignore[arg-type]
            if service is PIECES and node_id:
                # Which pieces a task has is decided once, with its node.
                stays = task is not None and task.node_id == node_id
                pieces = task.assigned_generic if stays else (GenericResource("gpu", name=f"g{where}"),)  # type: ignore[union-attr]
                fresh = replace(fresh, assigned_generic=pieces)
            apply(Create(fresh) if task is None else Update(replace(fresh, version=task.version)))
        elif what == "stop" and task is not None:
            apply(Update(replace(task, desired_state=TaskState.SHUTDOWN)))
        elif what == "delete" and task is not None:
            apply(Delete("task", task.id, task.version))
        elif what == "node":
            fresh_node = a_node(f"n{number}", state=state, generic=("gpu=g1", "gpu=g2", "licence=4"))  # type: ignore[arg-type]
            apply(Create(fresh_node) if node is None else Update(replace(fresh_node, version=node.version)))
        elif what == "remove" and node is not None:
            apply(Delete("node", node.id, node.version))
        elif what == "schedule":
            plan = schedule(seen, seen.tasks(), now=1.0, table=table)
            if number:
                apply(*plan.changes)
            else:
                table.take_back(c.object for c in plan.changes if isinstance(c, Update) and isinstance(c.object, Task))
        assert _facts(table) == _facts(NodeTable(seen))


def _facts(table: NodeTable) -> object:
    return (
        {
            id: (
                info.node,
                info.free,
                info.active_total,
                info.active_of_service,
                dict(info.tasks_of_service),
                +info.host_ports,
                info.pieces,
                +info.keeps_away,
            )
            for id, info in table.infos.items()
        },
        table.keepers_away,
        {service: nodes for service, nodes in table.nodes_of_service.items() if nodes},
    )
