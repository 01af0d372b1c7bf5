"""A manager whose state is not the majority's stops, and says what to do; one that cannot tell says so and goes on."""

from collections.abc import Sequence

import pytest
from lib.builders import a_node

from pyswarm.manager.agreement import Agreement
from pyswarm.manager.api.raft_status import RaftOperationsServicer
from pyswarm.manager.raft.port import Member
from pyswarm.manager.store import checkpoints
from pyswarm.manager.store.apply import Entry, encode_entry
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.checkpoints import Checkpoint
from pyswarm.manager.store.store import Store
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.errors import Internal, Unreachable
from pyswarm.proto.v1 import raft_pb2 as pb

MEMBERS = tuple(Member(f"raft-{n}", f"node-{n}", f"10.0.0.{n}:7946", f"10.0.0.{n}:2377") for n in (1, 2, 3))


class Managers:
    """Three managers' stores; asking one goes through its servicer and the messages, as on the wire."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoints, "CHECKPOINT_VERSIONS", 10)
        self.stores = {member.api_addr: Store() for member in MEMBERS}
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def apply(self, index: int, *names: str) -> None:
        """Have each manager apply an entry at `index`; deterministic while all `names` are the same."""
        for store, name in zip(self.stores.values(), names or ("same",) * 3, strict=True):
            store.apply(index, encode_entry(Entry("c", index, 1, (Create(a_node(f"{name}-{index}")),))))

    async def ask(self, address: str) -> Sequence[Checkpoint]:
        self.asked.append(address)
        if address in self.silent:
            raise Unreachable(f"cannot reach {address}")

        async def unused(*_: object) -> pb.RaftMemberReport:
            raise AssertionError("nobody asks for reports")

        servicer = RaftOperationsServicer(
            report=unused,  # type: ignore[arg-type]
            confirm=unused,
            rotate_key=unused,  # type: ignore[arg-type]
            members=tuple,
            store=self.stores[address],
            ask=unused,
        )
        answer = await servicer.ListCheckpoints(pb.RaftCheckpointsRequest(), None)
        return [from_message(c, Checkpoint) for c in answer.checkpoints]

    def agreement(self, number: int) -> Agreement:
        member = MEMBERS[number - 1]
        return Agreement(
            own_node_id=member.node_id, members=lambda: MEMBERS, store=self.stores[member.api_addr], ask=self.ask
        )


@pytest.fixture
def managers(monkeypatch: pytest.MonkeyPatch) -> Managers:
    return Managers(monkeypatch)


async def test_equal_states_are_compared_once_per_checkpoint(managers: Managers) -> None:
    agreement = managers.agreement(1)
    await agreement.compare()
    assert managers.asked == []
    for index in range(1, 12):
        managers.apply(index)
    await agreement.compare()
    await agreement.compare()
    assert managers.asked == ["10.0.0.2:2377", "10.0.0.3:2377"]


async def test_the_manager_that_differs_stops_and_says_what_to_do(managers: Managers) -> None:
    managers.apply(1, "wrong", "right", "right")
    for index in range(2, 12):
        managers.apply(index)
    with pytest.raises(Internal, match="at version 10 is not that of the majority") as failed:
        await managers.agreement(1).compare()
    assert "pyswarm node rm" in failed.value.remedy


async def test_the_others_go_on_and_name_it(managers: Managers, caplog: pytest.LogCaptureFixture) -> None:
    managers.apply(1, "wrong", "right", "right")
    for index in range(2, 12):
        managers.apply(index)
    await managers.agreement(2).compare()
    assert any("managers disagree" in m and "node-1" in m for m in caplog.messages)


async def test_a_silent_manager_outvotes_nobody(managers: Managers, caplog: pytest.LogCaptureFixture) -> None:
    managers.silent.add("10.0.0.3:2377")
    managers.apply(1, "one", "two", "two")
    for index in range(2, 12):
        managers.apply(index)
    await managers.agreement(1).compare()
    assert any("managers disagree" in m and "node-2" in m for m in caplog.messages)
