"""What callers are told about proposals and reads when leadership is lost or not confirmed."""

import asyncio
from pathlib import Path

import pytest
from lib.raft_lab import Ledger, RaftLab
from lib.sim.host import process_of
from lib.sim.simulation import Simulation, play
from msgspec.structs import replace

from pyswarm.manager.raft.commands import encode_batch
from pyswarm.manager.raft.core import APPEND_BATCH_BYTES
from pyswarm.manager.raft.engine import RaftSettings
from pyswarm.manager.raft.proposals import Proposal, Proposals
from pyswarm.manager.raft.reads import READS_MAX, Reads
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.proto.errors import Internal, NotLeader, OutcomeUnknown, Unavailable


class Rounds:
    def __init__(self) -> None:
        self.begun = 0

    def begin_round(self) -> int:
        self.begun += 1
        return self.begun


async def told_when_deposed(future_of: str, rules: Rules = ALL_RULES) -> BaseException | None:
    proposals = Proposals(1024, 1, rules)
    first, second = (Proposal(b"x", asyncio.get_running_loop().create_future(), deadline=10.0) for _ in range(2))
    proposals.waiting.append(first)
    proposals.next_batches()
    proposals.waiting.append(second)
    proposals.leadership_lost("node-b")
    return {"under way": first, "waiting": second}[future_of].outcome.exception()


async def test_what_is_under_way_when_leadership_is_lost_is_unknown_and_what_waits_was_not_proposed() -> None:
    """S13."""
    assert isinstance(await told_when_deposed("under way"), OutcomeUnknown)
    assert isinstance(await told_when_deposed("waiting"), NotLeader)


async def test_a_deadline_that_passes_says_whether_the_write_may_be_committed() -> None:
    proposals = Proposals(1024, 1)
    submitted, waiting, patient = (
        Proposal(b"x", asyncio.get_running_loop().create_future(), deadline) for deadline in (10.0, 10.0, 11.0)
    )
    proposals.waiting.append(submitted)
    proposals.next_batches()
    proposals.waiting += [waiting, patient]
    proposals.expire(9.9)
    assert not any(p.outcome.done() for p in (submitted, waiting, patient))
    proposals.expire(10.0)
    assert isinstance(submitted.outcome.exception(), OutcomeUnknown)
    assert isinstance(waiting.outcome.exception(), Unavailable)
    assert list(proposals.waiting) == [patient]
    assert not patient.outcome.done()


async def test_without_the_rule_a_write_that_may_be_committed_is_called_refused() -> None:
    rules = replace(ALL_RULES, unknown_when_deposed=False)
    assert isinstance(await told_when_deposed("under way", rules), NotLeader)


@pytest.mark.parametrize(("is_in_force", "answered"), [(True, False), (False, True)])
async def test_a_read_is_not_answered_before_its_round_is_confirmed(*, is_in_force: bool, answered: bool) -> None:
    reads = Reads(replace(ALL_RULES, confirm_reads=is_in_force))
    read = reads.add()
    reads.ask(read, 7)
    reads.begin(Rounds())
    reads.settle(confirmed=0, applied=9)
    assert read.outcome.done() is answered
    reads.settle(confirmed=1, applied=9)
    assert read.outcome.result() == 7


async def test_a_read_waits_for_a_round_begun_after_it_and_for_its_index() -> None:
    reads, rounds = Reads(), Rounds()
    early = reads.add()
    reads.ask(early, 5)
    reads.begin(rounds)
    late = reads.add()
    reads.ask(late, 6)
    reads.settle(confirmed=1, applied=4)
    assert not early.outcome.done(), "what it must see is not applied yet"
    reads.begin(rounds)
    reads.settle(confirmed=1, applied=9)
    assert early.outcome.done()
    assert not late.outcome.done(), "an answer to an older heartbeat says nothing about now"
    reads.settle(confirmed=2, applied=9)
    assert late.outcome.result() == 6


async def test_a_deposed_leader_answers_no_read_that_waits() -> None:
    reads = Reads()
    read = reads.add()
    reads.ask(read, 5)
    reads.begin(Rounds())
    reads.refuse(NotLeader(leader="node-b"))
    reads.settle(confirmed=9, applied=9)
    with pytest.raises(NotLeader):
        read.outcome.result()


async def test_reads_that_wait_are_bounded() -> None:
    reads = Reads()
    waiting = [reads.add() for _ in range(READS_MAX)]
    with pytest.raises(Unavailable, match="too many reads"):
        reads.add()
    reads.drop(waiting[0])
    assert reads.add().round == 0


async def test_no_entry_is_larger_than_a_batch_of_the_core() -> None:
    """S7: the core cuts a larger one in pieces, and finishes it twice."""
    settings = RaftSettings()
    proposals = Proposals(settings.entry_bytes_max, settings.entry_proposals_max, ALL_RULES)
    largest = bytes(settings.payload_bytes_max)
    for payload in (b"x", largest, largest, bytes(settings.entry_bytes_max - 1), b"x"):
        proposals.waiting.append(Proposal(payload, asyncio.get_running_loop().create_future(), deadline=10.0))
    sizes = []
    while batches := proposals.next_batches():
        for batch in batches:
            sizes.append(len(encode_batch([p.payload for p in batch])))
            proposals.committed(batch, 1, [b""] * len(batch))
    assert len(sizes) >= 4
    assert all(size < APPEND_BATCH_BYTES for size in sizes)


class Fragile(Ledger):
    tries = 0

    def apply(self, index: int, payload: bytes) -> bytes:
        if payload == b"poison":
            self.tries += 1
            raise ValueError("a defect of the state machine")
        return super().apply(index, payload)


async def test_what_raises_while_it_is_applied_stops_the_member_and_is_not_applied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S8: the core would try it again at every tick, and apply nothing behind it, on all members."""
    monkeypatch.setattr("lib.raft_lab.Ledger", Fragile)
    lab = RaftLab(tmp_path)
    member = await lab.first()
    with pytest.raises(OutcomeUnknown):
        await member.engine.propose(b"poison")
    assert member.task is not None
    with pytest.raises(Internal, match="a defect of the state machine"):
        await member.task
    member.task = None
    assert isinstance(member.ledger, Fragile)
    assert member.ledger.tries == 1


def test_a_fresh_leader_answers_no_read_before_an_entry_of_its_own_term_is_applied() -> None:
    """Rule `ready_before_reads`: its commit index may lag behind what the leader before it acknowledged."""

    async def course(group: Simulation) -> None:
        group.found()
        leader = await group.elected()
        # Its first entry waits for the disks; heartbeats, which confirm that it leads, do not.
        for host in group.hosts:
            host.stall_until = asyncio.get_running_loop().time() + 1.0
        read = leader.serve(process_of(leader).engine.read_barrier())
        await asyncio.wait({read}, timeout=0.4)
        assert not read.done()
        await read

    play(course, rules=ALL_RULES)
