"""What callers are told about proposals and reads when leadership is lost or not confirmed."""

import asyncio

import pytest
from msgspec.structs import replace

from pyswarm.manager.raft.proposals import Proposal, Proposals
from pyswarm.manager.raft.reads import READS_MAX, Reads
from pyswarm.manager.raft.rules import ALL_RULES, Rules
from pyswarm.proto.errors import NotLeader, OutcomeUnknown, Unavailable


class Rounds:
    def __init__(self) -> None:
        self.begun = 0

    def begin_round(self) -> int:
        self.begun += 1
        return self.begun


async def told_when_deposed(future_of: str, rules: Rules = ALL_RULES) -> BaseException | None:
    proposals = Proposals(1024, 1, rules)
    first, second = (Proposal(b"x", asyncio.get_running_loop().create_future()) for _ in range(2))
    proposals.waiting.append(first)
    proposals.next_batches()
    proposals.waiting.append(second)
    proposals.leadership_lost("node-b")
    return {"under way": first, "waiting": second}[future_of].outcome.exception()


async def test_what_is_under_way_when_leadership_is_lost_is_unknown_and_what_waits_was_not_proposed() -> None:
    """S13."""
    assert isinstance(await told_when_deposed("under way"), OutcomeUnknown)
    assert isinstance(await told_when_deposed("waiting"), NotLeader)


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
