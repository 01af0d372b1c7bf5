"""Store, writer and consensus together: what one room relies on when it uses all three."""

import asyncio

import pytest
from lib.builders import FakeClock, a_node, a_service, a_task
from msgspec.structs import replace

from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.raft.port import Consensus, StateMachine
from pyswarm.manager.store.changes import Create, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.model.states import TaskState


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def consensus(store: Store) -> SingleNodeConsensus:
    machine: StateMachine = store
    return SingleNodeConsensus(machine)


@pytest.fixture
def writer(store: Store, consensus: SingleNodeConsensus) -> Writer:
    port: Consensus = consensus
    return Writer(port, store, clock=FakeClock(), entropy=SeededEntropy(3))


async def test_a_write_returns_the_index_of_consensus(
    store: Store, consensus: SingleNodeConsensus, writer: Writer
) -> None:
    version = await writer.write([Create(a_node("n1"))])
    assert version == consensus.applied_index == store.view.version
    assert await consensus.read_barrier() == version


async def test_without_consensus_nothing_is_written(
    store: Store, consensus: SingleNodeConsensus, writer: Writer
) -> None:
    await consensus.close()
    with pytest.raises(Unavailable):
        await writer.update(lambda seen: Plan((Create(a_node("n1")),)))
    assert store.view.node("n1") is None


async def test_a_reconciler_that_follows_the_store_converges(store: Store, writer: Writer) -> None:
    """Events say where to look; the plan is decided on a view and decided again when overtaken."""

    def fill_slots(seen: Snapshot) -> Plan:
        web = seen.service("web")
        wanted = web.spec.mode.replicated.replicas if web is not None and web.spec.mode.replicated is not None else 0
        live = {t.slot for t in seen.tasks_of_service("web") if t.is_live}
        new = [Create(a_task(f"t{n}-{seen.version}", slot=n)) for n in sorted(set(range(1, wanted + 1)) - live)]
        return Plan(tuple(new), why=f"{len(live)} of {wanted} slots filled")

    async def reconcile() -> None:
        _, subscription = store.view_and_watch({"service", "task"})
        with subscription:
            async for _ in subscription:
                await writer.update(fill_slots)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        loop = group.create_task(reconcile())
        _, following = store.view_and_watch({"task"})
        with following:
            await asyncio.sleep(0)
            await writer.write([Create(a_service("web", replicas=3))])
            assert [t.slot for t in (await anext(following)).snapshot.tasks_of_service("web")] == [1, 2, 3]

            dead = store.view.tasks_of_service("web")[1]
            failed = replace(dead, status=replace(dead.status, state=TaskState.FAILED))
            await writer.write([Update(failed)])
            async for commit in following:
                if len([t for t in commit.snapshot.tasks_of_service("web") if t.is_live]) == 3:
                    break
        loop.cancel()
    assert [t.slot for t in store.view.tasks_of_service("web")] == [1, 2, 2, 3]


async def test_many_writers_lose_nothing(store: Store, consensus: SingleNodeConsensus) -> None:
    writers = [Writer(consensus, store, clock=FakeClock(), entropy=SeededEntropy(seed)) for seed in range(4)]
    await asyncio.gather(*(writers[n % 4].write([Create(a_task(f"t{n}"))]) for n in range(400)))
    await asyncio.gather(*(writers[n % 4].write([Delete("task", f"t{n}")]) for n in range(0, 400, 2)))
    assert [t.id for t in store.view.tasks()] == sorted(f"t{n}" for n in range(1, 400, 2))

    other = Store()
    other.restore(consensus.applied_index, store.snapshot())
    assert other.digest() == store.digest()
