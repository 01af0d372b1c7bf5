"""Who may call what is decided in front of every method, on real sockets with real TLS; refusals are logged."""

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from lib.builders import FakeClock
from lib.cluster_ca import DAY, ClusterCA
from lib.doors import Greeter, connect, info, listen, publish, raw, renew, serving

from pyswarm.proto.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    JoinTokenInvalid,
    NotFound,
    PermissionDenied,
    SwarmError,
)
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.client import open_channel, open_unix_channel
from pyswarm.proto.rpc.identity import CALLER_KEY, FORWARDED_KEY, Caller
from pyswarm.proto.rpc.server import Door, serve_unix
from pyswarm.proto.rpc.tls import pinned_root_credentials
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc


class World:
    """One manager that serves, and the certificates of those who come."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = ClusterCA()
        self.greeter = Greeter("m1")
        self.blacklist: set[str] = set()
        self.clock = FakeClock(self.ca.now)
        self.address = ""

    def certificates(self, node_id: str, role: Role, **how: Any) -> Path:
        return self.ca.issue(self.directory / node_id, node_id, role, **how)

    @property
    def last_caller(self) -> Caller:
        return self.greeter.callers[-1]


def _methods_nobody_stated(server: Any) -> None:
    """Methods that exist on the server without an `access` option."""

    async def answer(request: bytes, context: Any) -> bytes:
        return b"this must not be seen"

    handlers = {"Open": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pyswarm.v1.Forgotten", handlers),))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with serving(
        world.certificates("m1", Role.MANAGER),
        world.greeter,
        also=[_methods_nobody_stated],
        is_blacklisted=lambda node_id: node_id in world.blacklist,
        clock=world.clock,
    ) as world.address:
        yield world


def _refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "call refused" in r.getMessage()]


async def test_a_caller_is_who_its_certificate_says(world: World):
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        assert await renew(channel) == "m1:w1"
    caller = world.last_caller
    assert (caller.node_id, caller.role, caller.cluster_id, caller.is_local) == ("w1", Role.WORKER, "ours", False)
    assert caller.peer.startswith("ipv4:127.0.0.1:")


async def test_what_a_call_costs_does_not_depend_on_how_many_methods_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    waited_for: list[int] = []
    wait = asyncio.wait

    async def counting(tasks: Collection[Any], **how: Any) -> Any:
        waited_for.append(len(tasks))
        return await wait(tasks, **how)

    async with connect(world.address, world.certificates("m2", Role.MANAGER)) as channel:
        await info(channel)
        monkeypatch.setattr(asyncio, "wait", counting)
        await info(channel)
        await info(channel)
    assert waited_for, "the server waits for its calls in another way than this test knows"
    assert set(waited_for) == {1}


async def test_a_workers_certificate_cannot_call_what_is_for_managers(world: World, caplog: pytest.LogCaptureFixture):
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        with pytest.raises(PermissionDenied, match="GetInfo is not for a worker") as refused:
            await info(channel)
    assert refused.value.remedy == "Run the command on a manager."
    assert world.greeter.callers == []
    (line,) = _refusals(caplog)
    assert "method=/pyswarm.v1.Control/GetInfo" in line
    assert "peer=ipv4:127.0.0.1:" in line
    assert "open to manager" in line


async def test_a_managers_certificate_can(world: World):
    async with connect(world.address, world.certificates("m2", Role.MANAGER)) as channel:
        assert await info(channel) == "m1:m2"


async def test_a_certificate_that_names_another_cluster_is_refused(world: World, caplog: pytest.LogCaptureFixture):
    foreign = world.certificates("m9", Role.MANAGER, cluster_id="theirs")
    async with connect(world.address, foreign) as channel:
        with pytest.raises(PermissionDenied, match="cluster theirs, not ours"):
            await renew(channel)
    assert len(_refusals(caplog)) == 1


async def test_a_removed_node_is_refused_on_the_connection_it_already_has(
    world: World, caplog: pytest.LogCaptureFixture
):
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        assert await renew(channel) == "m1:w1"
        world.blacklist.add("w1")
        with pytest.raises(PermissionDenied, match="w1 was removed"):
            await renew(channel)
    assert len(_refusals(caplog)) == 1


async def test_a_connection_does_not_outlive_the_certificate_that_opened_it(world: World):
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        assert await renew(channel) == "m1:w1"
        world.clock.advance(DAY + 1)
        with pytest.raises(PermissionDenied, match="has expired"):
            await renew(channel)


@pytest.mark.parametrize("method", ["/pyswarm.v1.Forgotten/Open", "/pyswarm.v1.CA/NoSuchMethod", "/x/y"])
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_what_states_no_access_or_is_unknown_is_closed_even_to_managers(
    world: World, caplog: pytest.LogCaptureFixture, method: str, kind: str
):
    async with connect(world.address, world.certificates("m2", Role.MANAGER)) as channel:
        with pytest.raises(PermissionDenied, match="open to nobody"):
            await raw(channel, kind, method, b"")
    assert len(_refusals(caplog)) == 1


async def test_each_kind_of_call_is_guarded_and_serves_whom_it_admits(world: World):
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        assert await listen(channel) == ["0:m1:w1", "1:m1:w1", "2:m1:w1"]
        await publish(channel, ["a", "b"])
        assert world.greeter.published == ["a", "b"]
        world.blacklist.add("w1")
        with pytest.raises(PermissionDenied):
            await listen(channel)
        with pytest.raises(PermissionDenied):
            await publish(channel, ["c"])
    assert world.greeter.published == ["a", "b"]


# -- forwarded callers


def _forwarded(caller: Any) -> tuple[tuple[str, Any], ...]:
    encoded = caller if isinstance(caller, bytes) else msgspec.msgpack.encode(caller)
    return ((FORWARDED_KEY, "1"), (CALLER_KEY, encoded))


async def test_a_manager_may_say_for_whom_it_calls(world: World):
    original = Caller("w7", Role.WORKER, "ours", peer="ipv4:10.0.0.7:1")
    async with connect(world.address, world.certificates("m2", Role.MANAGER)) as channel:
        assert await renew(channel, metadata=_forwarded(original)) == "m1:w7"
        assert world.last_caller == original
        with pytest.raises(PermissionDenied, match="not for a worker"):
            await info(channel, metadata=_forwarded(original))
        local = Caller(is_local=True, cluster_id="ours")
        await info(channel, metadata=_forwarded(local))
        assert world.last_caller.is_local


async def test_a_worker_cannot_pose_as_somebody_else(world: World):
    posed = Caller("m2", Role.MANAGER, "ours", is_local=True)
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        assert await renew(channel, metadata=_forwarded(posed)) == "m1:w1"
        with pytest.raises(PermissionDenied):
            await info(channel, metadata=_forwarded(posed))


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        pytest.param(Caller("w7", Role.WORKER, "theirs"), "cluster theirs", id="of another cluster"),
        pytest.param(Caller("w8", Role.WORKER, "ours"), "w8 was removed", id="of a removed node"),
        pytest.param(b"\xc1 nonsense", "cannot be read", id="that cannot be read"),
    ],
)
async def test_a_forwarded_caller_is_refused(
    world: World, caplog: pytest.LogCaptureFixture, caller: Caller | bytes, reason: str
):
    world.blacklist.add("w8")
    async with connect(world.address, world.certificates("m2", Role.MANAGER)) as channel:
        with pytest.raises(PermissionDenied, match=reason):
            await renew(channel, metadata=_forwarded(caller))
    assert len(_refusals(caplog)) == 1


# -- the other doors


async def test_the_bootstrap_door_serves_strangers_what_is_for_strangers_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    ca = ClusterCA()
    certificates = ca.issue(tmp_path / "m1", "m1", Role.MANAGER)
    async with serving(certificates, Greeter("m1"), door=Door.BOOTSTRAP) as address:
        async with open_channel(address, pinned_root_credentials(ca.root.certificate_pem.encode())) as channel:
            bootstrap = ca_pb2_grpc.BootstrapStub(channel)
            assert (await bootstrap.GetRootCertificate(ca_pb2.GetRootCertificateRequest())).certificate_pem == "m1:"
            for call in (renew, info):
                with pytest.raises(PermissionDenied, match="a caller without a certificate"):
                    await call(channel)
        # A certificate changes nothing here: the door does not ask for one.
        async with connect(address, certificates) as channel:
            with pytest.raises(PermissionDenied, match="a caller without a certificate"):
                await info(channel)
    assert len(_refusals(caplog)) == 3


async def test_the_unix_socket_is_the_administrators(tmp_path: Path):
    path = tmp_path / "run" / "manager.sock"
    greeter = Greeter("m1")
    server = await serve_unix(path, [greeter.add_to], cluster_id="ours")
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        assert [p.name for p in path.parent.iterdir()] == ["manager.sock"]
        async with open_unix_channel(path) as channel:
            await info(channel)
            assert greeter.callers[-1] == Caller(is_local=True, cluster_id="ours", peer=greeter.callers[-1].peer)
            with pytest.raises(PermissionDenied, match="not for the local administrator"):
                await renew(channel)
            with pytest.raises(PermissionDenied):
                await renew(channel, metadata=_forwarded(Caller("m1", Role.MANAGER, "ours")))
    finally:
        await server.stop(None)


async def test_a_socket_path_that_cannot_be_is_explained(tmp_path: Path):
    with pytest.raises(FailedPrecondition, match="cannot listen on") as refused:
        await serve_unix(tmp_path / ("x" * 120 + ".sock"), [])
    assert "shorter" in refused.value.remedy


# -- what servicers raise


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no such node: w9", remedy="`pyswarm node ls` lists what there is."),
        AlreadyExists("name taken"),
        JoinTokenInvalid("the join token was rotated"),
        PermissionDenied("ünïcode, wörds", remedy="Rätsel."),
    ],
)
async def test_an_error_arrives_as_it_was_raised(world: World, error: SwarmError):
    world.greeter.error = error
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        with pytest.raises(type(error)) as arrived:
            await renew(channel)
        assert (arrived.value.message, arrived.value.remedy) == (error.message, error.remedy)
        with pytest.raises(type(error)):
            await listen(channel)


async def test_a_fault_of_ours_is_logged_with_its_traceback_and_named(world: World, caplog: pytest.LogCaptureFixture):
    world.greeter.error = ZeroDivisionError("division by zero")
    async with connect(world.address, world.certificates("w1", Role.WORKER)) as channel:
        with pytest.raises(Internal, match="ZeroDivisionError") as failed:
            await renew(channel)
    assert "report it" in failed.value.remedy
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info is not None
    assert "ZeroDivisionError" in caplog.text
    assert "RenewNodeCertificate" in record.getMessage()
