"""Lists too long for one entry: refused clearly when they belong together, cut when they do not."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.builders import FakeClock, a_node, a_task
from msgspec.structs import replace

from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.store.batch import ENTRY_BYTES_MAX, EntryTooLarge, parts
from pyswarm.manager.store.changes import Change, Create, Update
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import PARTS_IN_FLIGHT, Writer
from pyswarm.proto.entropy import SeededEntropy
from pyswarm.proto.errors import InvalidArgument, NotLeader


class PatientConsensus(SingleNodeConsensus):
    """Lets the event loop turn before it commits, as a disk would, and counts how many wait for it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.under_way = 0
        self.most_under_way = 0

    async def propose(self, payload: bytes, *, timeout_seconds: float = 10.0) -> tuple[int, bytes]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return await super().propose(payload, timeout_seconds=timeout_seconds)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def consensus(store: Store) -> PatientConsensus:
    return PatientConsensus(store)


@pytest.fixture
def writer(store: Store, consensus: PatientConsensus) -> Writer:
    return Writer(consensus, store, clock=FakeClock(), entropy=SeededEntropy(1))


def large(id: str, size: int) -> Create:
    return Create(replace(a_task(id), why="x" * size))


async def test_changes_that_fit_no_entry_together_are_refused_before_anything_is_proposed(
    writer: Writer, store: Store
) -> None:
    with pytest.raises(EntryTooLarge, match="2 changes of 16") as raised:
        await writer.write([large("t1", 800_000), large("t2", 800_000)])
    assert isinstance(raised.value, InvalidArgument)
    assert "fewer objects" in raised.value.remedy
    assert store.view.version == 0
    await writer.write([large("t1", 800_000)])
    assert store.view.count("task") == 1


def test_what_a_writer_lets_pass_consensus_accepts() -> None:
    assert RaftSettings().payload_bytes_max >= ENTRY_BYTES_MAX


async def test_a_batch_of_any_size_is_written_in_parts_side_by_side(
    writer: Writer, store: Store, consensus: PatientConsensus
) -> None:
    outcome = await writer.write_batch([Create(a_task(f"t{n}")) for n in range(5_000)])
    assert store.view.count("task") == 5_000
    assert (outcome.version, outcome.overtaken) == (store.view.version, ())
    assert consensus.most_under_way == PARTS_IN_FLIGHT


async def test_large_changes_are_cut_by_their_bytes(writer: Writer, store: Store) -> None:
    await writer.write_batch([large(f"t{n}", 300_000) for n in range(10)])
    assert store.view.count("task") == 10


async def test_only_the_parts_that_were_overtaken_are_left_unwritten(writer: Writer, store: Store) -> None:
    await writer.write([Create(a_task(f"t{n}")) for n in range(450)])
    await writer.write([Update(a_task("t250", version=1, slot=5))])
    outcome = await writer.write_batch([Update(a_task(f"t{n}", version=1, slot=9)) for n in range(450)])
    (overtaken,) = outcome.overtaken
    assert (overtaken.conflict.id, overtaken.conflict.found) == ("t250", 2)
    assert [c.object.id for c in overtaken.changes if isinstance(c, Update)] == [f"t{n}" for n in range(200, 400)]
    assert sum(task.slot == 9 for task in store.view.tasks()) == 250


async def test_a_failure_of_one_part_is_the_batchs_and_no_more_are_begun(
    writer: Writer, store: Store, consensus: PatientConsensus
) -> None:
    consensus.lose_leadership()
    with pytest.raises(NotLeader):
        await writer.write_batch([Create(a_node(f"n{n}")) for n in range(20_000)])
    assert store.view.version == 0
    assert consensus.under_way == 0


async def test_an_empty_batch_writes_nothing(writer: Writer, store: Store) -> None:
    assert (await writer.write_batch([])).version == store.view.version == 0


@given(
    st.lists(st.integers(0, 400), max_size=40),
    st.integers(1, 10),
    st.integers(1, 1000),
)
def test_parts_hold_every_change_once_in_order_within_both_bounds(
    sizes: list[int], changes_max: int, bytes_max: int
) -> None:
    changes: list[Change] = [large(f"t{n}", size) for n, size in enumerate(sizes)]
    cut = list(parts(changes, changes_max=changes_max, bytes_max=bytes_max))
    assert [change for part in cut for change in part] == changes
    assert all(1 <= len(part) <= changes_max for part in cut)
    oversized = [part for part in cut if sum(len(c.object.why) for c in part) > bytes_max]  # type: ignore[union-attr]
    assert all(len(part) == 1 for part in oversized)
