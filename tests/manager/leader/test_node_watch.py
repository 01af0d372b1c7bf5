"""What becomes of nodes that fall silent, whatever happens to the leader meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from lib.builders import a_cluster, a_node
from lib.sim.virtual_time import VirtualLoop
from msgspec.structs import replace

from pyswarm.manager.leader import liveness as module
from pyswarm.manager.leader.liveness import NodeWatch, SessionOver
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.states import NodeState


class Clock:
    """Stands still but for `seconds`; its loop must be told to look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return SYSTEM_CLOCK.now()

    def monotonic(self) -> float:
        return self.seconds


class Watched:
    def __init__(self) -> None:
        self.store = Store()
        self.consensus = SingleNodeConsensus(self.store)
        self.clock = Clock()
        writer = Writer(self.consensus, self.store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
        self.writer = writer
        self.watch = NodeWatch(store=self.store, writer=writer, clock=self.clock, entropy=SYSTEM_ENTROPY)
        self.running: asyncio.Task[None]

    async def open(self, node_id: str) -> str:
        session_id, _ = await self.watch.register(node_id, NodeDescription(hostname=node_id), "")
        return session_id

    def state_of(self, node_id: str) -> NodeState:
        node = self.store.view.node(node_id)
        assert node is not None
        return node.status.state

    async def until(self, holds: Callable[[], bool], *, seconds: float = 5) -> None:
        _, commits = self.store.view_and_watch()
        async with asyncio.timeout(seconds):
            with commits:
                while not holds():
                    await anext(commits)


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    watched = Watched()
    nodes = [a_node(f"n{n}", state=NodeState.UNKNOWN, version=0) for n in range(5)]
    await watched.writer.write([Create(a_cluster(version=0)), *map(Create, nodes)])
    watched.running = asyncio.create_task(watched.watch.run())
    yield watched
    watched.running.cancel()
    await asyncio.gather(watched.running, return_exceptions=True)


async def test_a_node_that_falls_silent_while_nothing_can_be_written_is_declared_down_later(watched: Watched):
    await watched.open("n0")
    watched.consensus.lose_quorum()
    watched.clock.seconds = 100.0
    with pytest.raises(module.Unavailable):
        await watched.open("n1")  # wakes the watch
    for _ in range(50):
        await asyncio.sleep(0)
    assert not watched.running.done()
    watched.consensus.regain_quorum()
    await watched.until(lambda: watched.state_of("n0") is NodeState.DOWN)


async def test_a_node_that_is_back_before_it_could_be_declared_down_stays_ready(watched: Watched):
    await watched.open("n0")
    await watched.open("n1")
    watched.consensus.lose_quorum()
    watched.clock.seconds = 100.0
    for node_id in ("n2", "n0"):
        with pytest.raises(module.Unavailable):
            await watched.open(node_id)
    for _ in range(50):
        await asyncio.sleep(0)
    watched.consensus.regain_quorum()
    await watched.open("n0")
    await watched.until(lambda: watched.state_of("n1") is NodeState.DOWN)
    assert watched.state_of("n0") is NodeState.READY


async def test_nodes_that_fall_silent_together_are_declared_down_in_one_write(watched: Watched):
    for number in range(4):
        await watched.open(f"n{number}")
    before = watched.store.view.version
    watched.clock.seconds = 100.0
    await watched.open("n4")
    await watched.until(lambda: watched.state_of("n0") is NodeState.DOWN)
    assert {watched.state_of(f"n{n}") for n in range(4)} == {NodeState.DOWN}
    assert watched.store.view.version == before + 2


async def test_a_node_that_was_down_before_the_leader_led_is_neither_missed_again_nor_down_anew(watched: Watched):
    """Swarm mistake 59: since when it has been down outlives leaders, so that it is given up in time."""
    node = a_node("gone", state=NodeState.DOWN, version=0)
    await watched.writer.write([Create(replace(node, status=replace(node.status, changed_at=5.0)))])
    again = NodeWatch(store=watched.store, writer=watched.writer, clock=watched.clock, entropy=SYSTEM_ENTROPY)
    running = asyncio.create_task(again.run())
    await asyncio.sleep(0)  # it expects the nodes that were up
    watched.clock.seconds = 100.0
    await again.register("n1", NodeDescription(), "")  # wakes it
    await watched.until(lambda: watched.state_of("n0") is NodeState.DOWN)
    found = watched.store.view.node("gone")
    assert found is not None
    assert (found.status.state, found.status.changed_at) == (NodeState.DOWN, 5.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_second_session_ends_the_first_and_a_flood_of_them_writes_nothing(watched: Watched):
    """Swarm mistake 47: SwarmKit limits the rate; here a registration that says nothing new costs no entry."""
    first, first_end = await watched.watch.register("n0", NodeDescription(hostname="n0"), "10.0.0.1")
    second, second_end = await watched.watch.register("n0", NodeDescription(hostname="n0"), "10.0.0.1")
    assert first_end.is_over
    assert not second_end.is_over
    for refuse in (watched.watch.beat, watched.watch.check):
        with pytest.raises(SessionOver):
            refuse("n0", first)
        refuse("n0", second)
    before = watched.store.view.version
    for _ in range(100):
        await watched.watch.register("n0", NodeDescription(hostname="n0"), "10.0.0.1")
    assert watched.store.view.version == before


async def test_who_gives_up_while_others_open_their_sessions_costs_no_write(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    """When thousands of agents come back at once, the leader's time is for those who still wait."""
    written: list[int] = []
    go_on = asyncio.Event()
    update = watched.writer.update

    async def slow(*arguments: object, **more: object) -> object:
        written.append(len(written))
        await go_on.wait()
        return await update(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(watched.writer, "update", slow)
    watched.watch._openings = asyncio.Semaphore(2)
    opening = [asyncio.create_task(watched.open(f"n{n}")) for n in range(5)]
    await asyncio.sleep(0)
    for given_up in opening[2:4]:
        given_up.cancel()
    go_on.set()
    await asyncio.gather(*opening, return_exceptions=True)
    assert len(written) == 3
    states = [watched.state_of(f"n{n}") for n in range(5)]
    assert states == [NodeState.READY] * 2 + [NodeState.UNKNOWN] * 2 + [NodeState.READY]


async def test_a_node_that_comes_back_while_it_is_being_declared_down_opens_another_session(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    """Its first one found it READY still and had nothing to write: it stayed DOWN for good, with a session."""
    await watched.open("n0")
    propose = watched.consensus.propose
    begun: asyncio.Queue[bytes] = asyncio.Queue()
    released = asyncio.Event()

    async def held_up(payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        begun.put_nowait(payload)
        await released.wait()
        return await propose(payload, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(watched.consensus, "propose", held_up)
    watched.clock.seconds = 100.0
    opening = asyncio.create_task(watched.open("n1"))  # wakes the watch
    async with asyncio.timeout(5):
        # That n1 is there, and that n0 is not.
        await begun.get()
        await begun.get()
        session_id = await watched.open("n0")
        released.set()
        await opening
    await watched.until(lambda: watched.state_of("n0") is NodeState.DOWN)
    with pytest.raises(SessionOver):
        watched.watch.beat("n0", session_id)
    watched.watch.beat("n0", await watched.open("n0"))
    assert watched.state_of("n0") is NodeState.READY


class LoopClock:
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    monotonic = now


def test_no_node_is_down_for_heartbeats_that_the_manager_had_no_time_to_read():
    """Its event loop is held for longer than silence is borne; what the node sent meanwhile is read after that."""
    loop = VirtualLoop()

    async def story() -> None:
        held = Watched()
        await held.writer.write([Create(a_cluster(version=0)), Create(a_node("n0", version=0))])
        held.watch = NodeWatch(store=held.store, writer=held.writer, clock=LoopClock(), entropy=SYSTEM_ENTROPY)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(held.watch.run())
            session_id = await held.open("n0")
            for _ in range(3):
                loop.hold(60.0)
                for _ in range(5):
                    await asyncio.sleep(0)  # the watch has its turn before the heartbeat is read
                held.watch.beat("n0", session_id)
            assert held.state_of("n0") is NodeState.READY
            silent_since = loop.time()
            await held.until(lambda: held.state_of("n0") is NodeState.DOWN, seconds=20)
            assert loop.time() - silent_since < 20
            running.cancel()

    loop.run_until_complete(story())
    loop.close()
