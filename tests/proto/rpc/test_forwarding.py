"""Calls that only the leader can answer reach it once, from any manager, and come back as it answered them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from lib.cluster_ca import ClusterCA
from lib.doors import Greeter, connect, info, listen, nodes, publish, raw, relay, renew, serving

from pyswarm.proto.errors import (
    AlreadyExists,
    HandedOnAstray,
    NodeRemoved,
    NoLeader,
    OutcomeUnknown,
    PermissionDenied,
    SwarmError,
    Unavailable,
)
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc import forward
from pyswarm.proto.rpc.access import Rule, rules
from pyswarm.proto.rpc.client import open_channel, open_unix_channel
from pyswarm.proto.rpc.forward import LeaderForwarder
from pyswarm.proto.rpc.identity import CALLER_KEY, FORWARDED_KEY
from pyswarm.proto.rpc.server import Door, serve_unix
from pyswarm.proto.rpc.tls import pinned_root_credentials
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc

BOTH = "/pyswarm.v1.Test/Both"


class Manager:
    def __init__(self, name: str) -> None:
        self.name = name
        self.greeter = Greeter(name)
        self.address = ""
        self.leads = False
        self.leader: str | None = None
        self.certificates = Path()
        self.moved = asyncio.Event()
        self.asked = asyncio.Event()
        self.refusal: SwarmError | None = None
        self.forwarder = LeaderForwarder(
            self._leadership, lambda address: connect(address, self.certificates), refusal=lambda: self.refusal
        )
        self.metadata: dict[str, Any] = {}

    def _leadership(self) -> tuple[bool, str | None]:
        self.asked.set()
        return self.leads, self.leader

    async def leaders(self) -> AsyncIterator[str | None]:
        while True:
            await self.moved.wait()
            self.moved.clear()
            yield self.leader

    def add_both_ways(self, server: Any) -> None:
        """The protocol has no call with streams both ways yet; forwarding knows it all the same."""

        async def shout(requests: Any, context: Any) -> AsyncIterator[bytes]:
            self.metadata = dict(context.invocation_metadata())
            async for request in requests:
                yield request.upper()

        handlers = {"Both": grpc.stream_stream_rpc_method_handler(shout)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pyswarm.v1.Test", handlers),))


class World:
    def __init__(self, directory: Path) -> None:
        self.ca = ClusterCA()
        self.directory = directory
        self.managers = {name: Manager(name) for name in ("m1", "m2", "m3")}
        self.worker = self.ca.issue(directory / "w1", "w1", Role.WORKER)

    def __getitem__(self, name: str) -> Manager:
        return self.managers[name]

    def lead(self, name: str | None) -> None:
        for manager in self.managers.values():
            manager.leads = manager.name == name
            manager.leader = self.managers[name].address if name is not None else None
            manager.moved.set()

    async def serve(self, stack: AsyncExitStack, name: str) -> None:
        manager = self[name]
        manager.certificates = self.ca.issue(self.directory / name, name, Role.MANAGER)
        doors = serving(
            manager.certificates,
            manager.greeter,
            interceptors=[manager.forwarder],
            also=[manager.add_both_ways],
        )
        manager.address = await stack.enter_async_context(doors)
        stack.push_async_callback(manager.forwarder.close)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setitem(rules(), BOTH, Rule(roles=frozenset({Role.WORKER}), leader_only=True))  # type: ignore[call-overload]
    world = World(tmp_path)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for name in world.managers:
            await world.serve(stack, name)
        world.lead("m1")
        following = [group.create_task(m.forwarder.follow(m.leaders())) for m in world.managers.values()]
        yield world
        for task in following:
            task.cancel()


async def test_a_follower_hands_each_kind_of_call_to_the_leader_with_the_callers_identity(world: World):
    async with connect(world["m2"].address, world.worker) as channel:
        assert await renew(channel) == "m1:w1"
        assert await listen(channel) == ["0:m1:w1", "1:m1:w1", "2:m1:w1"]
        await publish(channel, ["a", "b"])
        assert world["m1"].greeter.published == ["a", "b"]
        assert await raw(channel, "stream_stream", BOTH, b"one", b"two") == [b"ONE", b"TWO"]
    assert world["m1"].metadata[FORWARDED_KEY] == "1"
    assert CALLER_KEY in world["m1"].metadata
    assert world["m2"].greeter.callers == []
    assert {c.role for c in world["m1"].greeter.callers} == {Role.WORKER}


async def test_the_leader_answers_itself(world: World):
    async with connect(world["m1"].address, world.worker) as channel:
        assert await renew(channel) == "m1:w1"


async def test_a_manager_that_was_removed_says_so_at_once_and_does_not_wait_for_a_leader(world: World):
    world.lead(None)
    world["m2"].refusal = NodeRemoved("this manager was removed")
    async with connect(world["m2"].address, world.worker) as channel:
        with pytest.raises(NodeRemoved, match="removed"):
            async with asyncio.timeout(forward.ELECTION_SECONDS / 2):
                await renew(channel)


async def test_a_call_that_any_manager_can_answer_is_not_handed_on(world: World):
    async with connect(world["m2"].address, world["m3"].certificates) as channel:
        assert await info(channel) == "m2:m3"


async def test_the_local_administrators_call_arrives_as_such(world: World, tmp_path: Path):
    follower = world["m2"]
    server = await serve_unix(
        tmp_path / "m.sock", [follower.greeter.add_to], cluster_id="ours", interceptors=[follower.forwarder]
    )
    try:
        async with open_unix_channel(tmp_path / "m.sock") as channel:
            await raw(channel, "unary_unary", "/pyswarm.v1.Control/ListNodes", b"")
    finally:
        await server.stop(None)
    (caller,) = world["m1"].greeter.callers
    assert caller.is_local


async def test_the_leaders_error_comes_back_as_it_was(world: World):
    world["m1"].greeter.error = AlreadyExists("a service named web exists", remedy="Choose another name.")
    async with connect(world["m2"].address, world.worker) as channel:
        for call in (renew(channel), listen(channel), publish(channel, ["a"])):
            with pytest.raises(AlreadyExists, match="web exists") as failed:
                await call
            assert failed.value.remedy == "Choose another name."


async def test_a_refusal_by_the_leader_is_logged_where_the_caller_is_known(
    world: World, caplog: pytest.LogCaptureFixture
):
    world["m1"].greeter.error = PermissionDenied("the token was rotated")
    async with connect(world["m2"].address, world.worker) as channel:
        with pytest.raises(PermissionDenied):
            await renew(channel)
    (line,) = [m for m in caplog.messages if "call refused" in m]
    assert world["m1"].greeter.callers[0].peer in line
    assert f"by={world['m1'].address}" in line
    assert "token was rotated" in line


async def test_a_call_is_handed_on_once_only(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forward, "ELECTION_SECONDS", 0.0)
    # m2 believes in m3, which does not lead: leadership has just moved.
    world.lead("m3")
    world["m3"].leads = False
    async with connect(world["m2"].address, world.worker) as channel:
        for call in (renew(channel), listen(channel)):
            with pytest.raises(HandedOnAstray, match="does not lead"):
                await call
    assert all(m.greeter.callers == [] for m in world.managers.values())


@pytest.mark.parametrize("astray", [False, True], ids=["no leader", "one that does not lead"])
async def test_a_call_waits_while_leadership_moves(world: World, astray: bool):
    world.lead("m3" if astray else None)
    world["m3"].leads = False
    async with connect(world["m2"].address, world.worker) as channel:
        waiting = asyncio.ensure_future(renew(channel))
        await world["m3" if astray else "m2"].asked.wait()
        world.lead("m1")
        assert await waiting == "m1:w1"


async def test_a_manager_that_is_elected_while_a_call_waits_answers_it(world: World):
    world.lead(None)
    async with connect(world["m2"].address, world.worker) as channel:
        waiting = asyncio.ensure_future(renew(channel))
        await world["m2"].asked.wait()
        world.lead("m2")
        assert await waiting == "m2:w1"


async def test_without_a_leader_the_caller_is_told_what_is_missing(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forward, "ELECTION_SECONDS", 0.0)
    world.lead(None)
    async with connect(world["m2"].address, world.worker) as channel:
        for call in (renew(channel), listen(channel)):
            with pytest.raises(NoLeader, match="the cluster has no leader") as failed:
                await call
            assert "majority" in failed.value.remedy


async def test_a_leader_that_cannot_be_reached_is_not_taken_for_the_manager_that_was_asked(world: World):
    world.lead("m1")
    for manager in world.managers.values():
        manager.leader = "127.0.0.1:1"
    async with connect(world["m2"].address, world.worker) as channel:
        with pytest.raises(Unavailable, match=r"this manager cannot reach the leader: .*127\.0\.0\.1:1"):
            await renew(channel)


async def test_a_call_that_the_leader_may_have_served_has_an_unknown_outcome(world: World):
    leader = world["m1"].greeter
    leader.hold = asyncio.Event()
    async with relay(world["m1"].address) as way:
        world["m2"].leader = way.address
        async with connect(world["m2"].address, world.worker) as channel:
            under_way = asyncio.ensure_future(renew(channel))
            await leader.entered.wait()
            way.cut()
            with pytest.raises(OutcomeUnknown, match="did not answer") as failed:
                await under_way
            assert "look before you repeat it" in failed.value.remedy
            assert "majority" in failed.value.remedy
            # Not so when the next call finds nobody at that address: nothing was sent.
            with pytest.raises(Unavailable, match="this manager cannot reach the leader") as refused:
                await renew(channel)
            assert not isinstance(refused.value, OutcomeUnknown)


@pytest.mark.parametrize("call", [renew, listen], ids=["a change", "a stream that only looks"])
async def test_a_leader_that_falls_silent_is_waited_for_no_longer_than_it_is_taken_for_the_leader(
    world: World, monkeypatch: pytest.MonkeyPatch, call: Any
):
    monkeypatch.setattr(forward, "LAST_WORD_SECONDS", 0.05)
    silent = world["m1"].greeter
    silent.hold = asyncio.Event()
    async with connect(world["m2"].address, world.worker) as channel:
        under_way = asyncio.ensure_future(call(channel))
        await silent.entered.wait()
        world.lead(None)
        with pytest.raises(Unavailable, match="fell silent, and does not lead any more") as failed:
            await under_way
        assert isinstance(failed.value, OutcomeUnknown) == (call is renew)
        assert "majority" in failed.value.remedy
        # What it has been sent is of no use any more, and it is told so.
        await silent.left.wait()


async def test_a_call_that_only_looks_has_no_outcome_that_could_be_unknown(world: World):
    leader = world["m1"].greeter
    leader.hold = asyncio.Event()
    async with relay(world["m1"].address) as way:
        world["m2"].leader = way.address
        async with connect(world["m2"].address, world["m3"].certificates) as channel:
            under_way = asyncio.ensure_future(nodes(channel))
            await leader.entered.wait()
            way.cut()
            with pytest.raises(Unavailable, match="this manager cannot reach the leader") as failed:
                await under_way
            assert not isinstance(failed.value, OutcomeUnknown)
            assert "majority" in failed.value.remedy


async def test_the_callers_deadline_goes_with_the_call(world: World):
    async with connect(world["m2"].address, world.worker) as channel:
        await renew(channel, timeout=7)
        await listen(channel, timeout=8)
    first, second, *_ = world["m1"].greeter.remaining
    assert first is not None
    assert 0 < first < 7.5
    assert second is not None
    assert 7 < second < 8.5


async def test_a_call_under_way_survives_the_discovery_of_another_leader(world: World):
    former = world["m1"].greeter
    former.hold = asyncio.Event()
    async with connect(world["m2"].address, world.worker) as channel:
        slow = asyncio.ensure_future(renew(channel))
        await former.entered.wait()
        world.lead("m3")
        assert await renew(channel) == "m3:w1"
        former.hold.set()
        assert await slow == "m1:w1"


async def test_a_caller_that_goes_away_ends_the_call_at_the_leader(world: World):
    leader = world["m1"].greeter
    leader.hold = asyncio.Event()
    async with connect(world["m2"].address, world.worker) as channel:
        slow = asyncio.ensure_future(renew(channel))
        await leader.entered.wait()
        slow.cancel()
        await leader.left.wait()


async def test_strangers_are_handed_on_as_strangers(world: World):
    """The bootstrap port has its own forwarder; the leader's bootstrap port trusts nobody's word about the caller."""
    leader, follower = world["m1"], world["m2"]
    async with serving(leader.certificates, leader.greeter, door=Door.BOOTSTRAP) as address:
        root = world.ca.root.certificate_pem.encode()
        forwarder = LeaderForwarder(
            lambda: (False, address), lambda to: open_channel(to, pinned_root_credentials(root))
        )
        async with (
            serving(follower.certificates, follower.greeter, door=Door.BOOTSTRAP, interceptors=[forwarder]) as entrance,
            open_channel(entrance, pinned_root_credentials(root)) as channel,
        ):
            with pytest.raises(PermissionDenied, match="without a certificate"):
                await renew(channel)
            # The greeter does not implement it, so the leader says so: the call did arrive there.
            stub = ca_pb2_grpc.BootstrapStub(channel)
            with pytest.raises(Exception, match="not implemented"):
                await stub.IssueNodeCertificate(ca_pb2.IssueNodeCertificateRequest())
            await forwarder.close()
