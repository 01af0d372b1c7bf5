"""Writing: exactly once whatever consensus can tell, decided again when overtaken, nothing held in flight."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from lib.builders import FakeClock, a_node, a_task
from msgspec.structs import replace

from pyswarm.manager.raft.port import Leadership, Member
from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Create, Delete, Plan, Update
from pyswarm.manager.store.conflict import Conflict, InvalidChanges
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import MAX_IN_FLIGHT, Writer
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import FailedPrecondition, NotLeader, OutcomeUnknown, OutOfSequence, Unavailable

ME = Member("r1", "m1", "m1:7946", "m1:2377")
OTHER = Member("r2", "m2", "m2:7946", "m2:2377")
LEADING = Leadership(term=1, leader=ME, is_leader=True, is_ready=True)
FOLLOWING = Leadership(term=2, leader=OTHER, is_leader=False, is_ready=False)

Step = Callable[["ScriptedConsensus", bytes], Any]


def commit(consensus: "ScriptedConsensus", payload: bytes) -> tuple[int, bytes]:
    consensus.index += 1
    return consensus.index, consensus.store.apply(consensus.index, payload)


def commit_but_lose_the_answer(consensus: "ScriptedConsensus", payload: bytes) -> tuple[int, bytes]:
    commit(consensus, payload)
    raise OutcomeUnknown("leadership was lost")


def lose(consensus: "ScriptedConsensus", payload: bytes) -> tuple[int, bytes]:
    raise OutcomeUnknown("leadership was lost")


def refuse(consensus: "ScriptedConsensus", payload: bytes) -> tuple[int, bytes]:
    raise NotLeader(leader="m2")


def no_quorum(consensus: "ScriptedConsensus", payload: bytes) -> tuple[int, bytes]:
    raise Unavailable("no quorum")


class ScriptedConsensus:
    """Does with each proposal what the script says, then commits; says of leadership what it is told."""

    def __init__(self, store: Store, *script: Step, leadership: Leadership = LEADING) -> None:
        self.store = store
        self.script = list(script)
        self.index = 0
        self.proposals: list[bytes] = []
        self.leadership = leadership
        self.gate: asyncio.Event | None = None
        self.barriers = 0
        self.behind: Callable[[ScriptedConsensus], object] = lambda _: None
        """What the view learns when it is brought up to date."""

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        self.proposals.append(payload)
        step = self.script.pop(0) if self.script else commit
        if self.gate is not None:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self.gate.wait()
            except TimeoutError as error:
                raise OutcomeUnknown("no answer in time") from error
        return step(self, payload)  # type: ignore[no-any-return]

    async def read_barrier(self, *, timeout_seconds: float = 5.0) -> int:
        self.barriers += 1
        self.behind(self)
        return self.index

    async def watch_leadership(self) -> AsyncIterator[Leadership]:
        yield self.leadership
        await asyncio.Event().wait()


def a_writer(*script: Step, leadership: Leadership = LEADING) -> tuple[Writer, Store, ScriptedConsensus]:
    store = Store()
    consensus = ScriptedConsensus(store, *script, leadership=leadership)
    writer = Writer(consensus, store, clock=FakeClock(1000.0), entropy=SeededEntropy(1))  # type: ignore[arg-type]
    return writer, store, consensus


async def test_a_write_is_in_the_view_when_it_returns_and_stamped() -> None:
    writer, store, _ = a_writer()
    version = await writer.write([Create(a_node("n1"))])
    assert version == store.view.version == 1
    assert store.view.node("n1") == replace(a_node("n1"), created_at=1000.0, updated_at=1000.0)


async def test_creation_times_that_were_decided_are_kept_and_updates_only_move_updated_at() -> None:
    writer, store, _ = a_writer()
    await writer.write([Create(a_task("t1", created_at=7.0))])
    stored = store.view.task("t1")
    assert stored is not None
    await writer.write([Update(replace(stored, created_at=7.0, slot=2))])
    stored = store.view.task("t1")
    assert stored is not None
    assert (stored.created_at, stored.updated_at, stored.slot, stored.version) == (7.0, 1000.0, 2, 2)


async def test_nothing_is_proposed_for_nothing() -> None:
    writer, _, consensus = a_writer()
    assert await writer.write([]) == 0
    assert consensus.proposals == []


async def test_a_conflict_says_which_object_moved() -> None:
    writer, store, _ = a_writer()
    await writer.write([Create(a_node("n1"))])
    with pytest.raises(OutOfSequence) as raised:
        await writer.write([Create(a_node("n2")), Update(a_node("n1", version=9))])
    assert isinstance(raised.value, Conflict)
    assert (raised.value.kind, raised.value.id, raised.value.expected, raised.value.found) == ("node", "n1", 9, 1)
    assert store.view.node("n2") is None


async def test_changes_that_fit_no_state_are_a_fault() -> None:
    writer, _, _ = a_writer()
    with pytest.raises(InvalidChanges, match="written twice"):
        await writer.write([Create(a_node("n1")), Create(a_node("n1"))])


async def test_a_write_whose_answer_was_lost_takes_effect_once_and_reports_its_first_version() -> None:
    writer, store, consensus = a_writer(commit_but_lose_the_answer)
    assert await writer.write([Create(a_node("n1"))]) == 1
    assert len(consensus.proposals) == 2
    assert store.view.count("node") == 1


async def test_a_write_that_was_lost_is_proposed_again() -> None:
    writer, store, consensus = a_writer(lose, no_quorum, lose)
    assert await writer.write([Create(a_node("n1"))]) == 1
    assert len(consensus.proposals) == 4
    assert store.view.count("node") == 1


async def test_an_outcome_that_arrived_with_the_new_leaders_log_is_found() -> None:
    writer, _, consensus = a_writer(commit_but_lose_the_answer, leadership=FOLLOWING)
    assert await writer.write([Create(a_node("n1"))]) == 1
    assert len(consensus.proposals) == 1


async def test_who_no_longer_leads_says_that_the_outcome_is_unknown() -> None:
    writer, _, _ = a_writer(lose, leadership=FOLLOWING)
    with pytest.raises(OutcomeUnknown) as raised:
        await writer.write([Create(a_node("n1"))])
    assert raised.value.remedy


@pytest.mark.parametrize(("step", "error"), [(refuse, NotLeader), (no_quorum, Unavailable)])
async def test_a_refusal_at_the_first_try_is_certain(step: Step, error: type[Exception]) -> None:
    writer, _, consensus = a_writer(step)
    with pytest.raises(error) as raised:
        await writer.write([Create(a_node("n1"))])
    assert not isinstance(raised.value, OutcomeUnknown)
    assert len(consensus.proposals) == 1


async def test_a_refusal_after_a_lost_answer_is_not() -> None:
    writer, _, _ = a_writer(lose, refuse, lose, refuse, lose, refuse)
    writer_task = asyncio.ensure_future(writer.write([Create(a_node("n1"))], timeout_seconds=0.05))
    with pytest.raises(OutcomeUnknown):
        await writer_task


async def test_the_deadline_ends_a_write() -> None:
    writer, _, consensus = a_writer()
    consensus.gate = asyncio.Event()
    with pytest.raises(OutcomeUnknown):
        await writer.write([Create(a_node("n1"))], timeout_seconds=0.02)


async def test_nothing_is_locked_while_a_write_is_in_flight() -> None:
    writer, store, consensus = a_writer()
    consensus.gate = asyncio.Event()
    writes = [asyncio.ensure_future(writer.write([Create(a_node(f"n{n}"))])) for n in range(100)]
    await asyncio.sleep(0)
    assert len(consensus.proposals) == 100
    consensus.gate.set()
    assert sorted(await asyncio.gather(*writes)) == list(range(1, 101))
    assert store.view.count("node") == 100


async def test_what_is_in_flight_is_bounded_and_waiting_has_a_deadline() -> None:
    writer, _, consensus = a_writer()
    consensus.gate = asyncio.Event()
    writes = [asyncio.ensure_future(writer.write([Create(a_node(f"n{n}"))])) for n in range(MAX_IN_FLIGHT)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as raised:
        await writer.write([Create(a_node("late"))], timeout_seconds=0.01)
    assert not isinstance(raised.value, OutcomeUnknown)
    consensus.gate.set()
    await asyncio.gather(*writes)
    assert await writer.write([Create(a_node("late"))]) == MAX_IN_FLIGHT + 1


async def test_settled_writes_are_forgotten_by_the_state() -> None:
    writer, store, _ = a_writer()
    for n in range(50):
        await writer.write([Create(a_node(f"n{n}"))])
    (record,) = store._state.writers.values()
    assert list(record.outcomes) == [50]


async def test_a_cancelled_write_leaves_nothing_behind() -> None:
    writer, _, consensus = a_writer()
    consensus.gate = asyncio.Event()
    task = asyncio.ensure_future(writer.write([Create(a_node("n1"))]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    consensus.gate.set()
    assert await writer.write([Create(a_node("n1"))]) == 1
    assert not writer._in_flight


def more_cpus(seen: Snapshot) -> Plan:
    node = seen.node("n1")
    if node is None:
        raise FailedPrecondition("no such node")
    description = node.description
    resources = replace(description.resources, nano_cpus=description.resources.nano_cpus + 1)
    return Plan((Update(replace(node, description=replace(description, resources=resources))),), why="one more")


async def test_a_decision_that_is_overtaken_is_made_again_on_what_is_then() -> None:
    writer, store, _ = a_writer()
    await writer.write([Create(a_node("n1", cpus=0))])
    results = await asyncio.gather(*(writer.update(more_cpus, attempts=30) for _ in range(20)))
    node = store.view.node("n1")
    assert node is not None
    assert node.description.resources.nano_cpus == 20
    assert sorted(version for version, _ in results) == sorted({version for version, _ in results})
    assert all(plan.why == "one more" for _, plan in results)


async def test_a_decision_always_overtaken_gives_up_with_the_conflict() -> None:
    writer, _, _ = a_writer()
    tries: list[int] = []

    def stale(seen: Snapshot) -> Plan:
        tries.append(seen.version)
        return Plan((Delete("node", "n1", 77),))

    with pytest.raises(Conflict):
        await writer.update(stale, attempts=3)
    assert len(tries) == 3


async def test_what_the_decision_raises_reaches_the_caller_and_an_empty_plan_writes_nothing() -> None:
    writer, _, consensus = a_writer()
    with pytest.raises(FailedPrecondition):
        await writer.update(more_cpus)
    assert await writer.update(lambda seen: Plan(why="nothing to do")) == (0, Plan(why="nothing to do"))
    assert consensus.proposals == []


def another_leaders_write(consensus: ScriptedConsensus) -> None:
    """The other leader's entry, which has not reached this manager yet, arrives."""
    node = consensus.store.view.node("n1")
    assert node is not None
    changes = (Update(replace(node, updated_at=2000.0)),)
    commit(consensus, encode_entry(Entry("another", 1, 1, changes)))


async def test_a_refusal_is_decided_on_a_view_that_is_known_to_be_up_to_date() -> None:
    """Who was deposed without knowing it would otherwise refuse what fits the state that the others have."""
    writer, _, consensus = a_writer()
    await writer.write([Create(a_node("n1"))])
    consensus.behind = another_leaders_write

    def decide(seen: Snapshot) -> Plan:
        node = seen.node("n1")
        assert node is not None
        if node.version != 2:
            raise OutOfSequence(f"the node is at version {node.version}, not 2")
        return Plan((Update(node),))

    version, _ = await writer.update(decide)
    assert version == 3
    assert consensus.barriers == 1


async def test_that_nothing_is_to_be_done_is_decided_on_a_view_that_is_known_to_be_up_to_date() -> None:
    writer, store, consensus = a_writer()
    await writer.write([Create(a_node("n1"))])
    consensus.behind = another_leaders_write

    def decide(seen: Snapshot) -> Plan:
        node = seen.node("n1")
        assert node is not None
        return Plan((Delete("node", "n1", node.version),) if node.version == 2 else ())

    await writer.update(decide)
    assert store.view.node("n1") is None


async def test_who_cannot_bring_its_view_up_to_date_does_not_refuse_by_it() -> None:
    writer, _, consensus = a_writer()

    def deposed(_: ScriptedConsensus) -> None:
        raise NotLeader(leader="m2")

    def decide(_: Snapshot) -> Plan:
        raise FailedPrecondition("too late")

    consensus.behind = deposed
    with pytest.raises(NotLeader):
        await writer.update(decide)


async def test_a_decision_that_writes_costs_no_barrier() -> None:
    writer, _, consensus = a_writer()
    await writer.update(lambda _: Plan((Create(a_node("n1")),)))
    assert consensus.barriers == 0
