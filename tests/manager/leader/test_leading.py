"""The leader's loops: what they react to, and that nothing of them lives on when leadership is lost."""

import asyncio
from collections.abc import Callable

import pytest
from lib.builders import GIB, a_cluster, a_node, a_revision, a_service
from msgspec.structs import replace

from pyswarm.manager.leader.loop import lead
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import Service, Task
from pyswarm.proto.model.spec import CronSchedule, ReplicatedJob
from pyswarm.proto.model.states import TaskState


class Led:
    """A store, and managers that lead on it when told."""

    def __init__(self) -> None:
        self.store = Store()
        self.consensus = SingleNodeConsensus(self.store)
        self.writer = Writer(self.consensus, self.store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)

    @property
    def seen(self) -> Snapshot:
        return self.store.view

    def lead(self) -> "asyncio.Task[None]":
        return asyncio.create_task(
            lead(
                store=self.store,
                writer=self.writer,
                clock=SYSTEM_CLOCK,
                entropy=SYSTEM_ENTROPY,
                consensus=self.consensus,
            )
        )

    async def write(self, *changes: Change) -> None:
        await self.writer.write(changes)

    async def create(self, service: Service) -> None:
        await self.write(Create(service), Create(a_revision(service, version=0)))

    async def until(self, holds: Callable[[Snapshot], bool]) -> None:
        seen, commits = self.store.view_and_watch()
        with commits:
            async with asyncio.timeout(5):
                while not holds(seen):
                    seen = (await anext(commits)).snapshot

    def tasks(self) -> list[Task]:
        return list(self.seen.tasks())


@pytest.fixture
async def led() -> Led:
    led = Led()
    await led.write(Create(a_cluster(version=0)), Create(a_node("n1", version=0)))
    return led


async def _end(leading: "asyncio.Task[None]") -> None:
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_nothing_of_a_leader_lives_on_when_leadership_is_lost(led: Led):  # swarm mistake 28
    before = asyncio.all_tasks()
    for _ in range(3):
        await _end(led.lead())
    assert asyncio.all_tasks() == before
    assert led.store.followers == 0
    # A job is run by one leader alone, however often leadership was regained.
    leading = led.lead()
    await led.create(a_service("sums", job=ReplicatedJob(2, 2), version=0))
    job = led.seen.service("sums")
    assert job is not None
    await led.write(Update(replace(job, job_status=replace(job.job_status, iteration=1))))
    await led.until(lambda seen: len([t for t in seen.tasks() if t.state is TaskState.ASSIGNED]) >= 2)
    await _end(leading)
    assert len(led.tasks()) == 2


async def test_a_new_leader_carries_on_where_the_old_one_stopped(led: Led):
    await _end(led.lead())
    await led.create(a_service("web", replicas=3, version=0))
    leading = led.lead()
    await led.until(lambda seen: sum(t.state is TaskState.ASSIGNED for t in seen.tasks()) == 3)
    await _end(leading)
    again = led.lead()
    await led.create(a_service("db", version=0))
    await led.until(lambda seen: sum(t.service_id == "db" and bool(t.node_id) for t in seen.tasks()) == 1)
    await _end(again)
    assert len([t for t in led.tasks() if t.service_id == "web"]) == 3


async def test_a_node_that_shrinks_has_its_surplus_marked_to_be_moved(led: Led):
    leading = led.lead()
    await led.create(a_service("fat", replicas=2, reserve_memory_bytes=3 * GIB, version=0))
    await led.until(lambda seen: sum(t.state is TaskState.ASSIGNED for t in seen.tasks()) == 2)
    for task in led.tasks():
        await led.write(Update(replace(led.seen.task(task.id), status=replace(task.status, state=TaskState.RUNNING))))  # type: ignore[type-var]
    node = led.seen.node("n1")
    assert node is not None
    has = replace(node.description.resources, memory_bytes=4 * GIB)
    await led.write(Update(replace(node, description=replace(node.description, resources=has))))
    await led.until(lambda seen: any(t.move for t in seen.tasks()))
    await _end(leading)
    assert sum(t.move is not None for t in led.tasks()) == 1


async def test_a_schedule_is_followed_from_when_it_is_first_seen_whoever_leads(led: Led):
    spec = replace(a_service("backup", job=ReplicatedJob(1, 1)).spec, schedule=CronSchedule("0 3 1 1 *"))
    leading = led.lead()
    await led.create(a_service("backup", spec=spec, version=0))
    await led.until(lambda seen: bool((found := seen.service("backup")) and found.cron.since))
    await _end(leading)
    first = led.seen.service("backup")
    again = led.lead()
    await led.create(a_service("web", version=0))
    await led.until(lambda seen: any(t.service_id == "web" for t in seen.tasks()))
    await _end(again)
    assert led.seen.service("backup") == first
