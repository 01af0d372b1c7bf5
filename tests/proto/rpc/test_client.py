"""What a client is told when a call fails, and how a pool of managers moves on."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest
from lib.cluster_ca import DAY, ClusterCA
from lib.doors import Greeter, connect, listen, publish, renew, serving

from pyswarm.proto.errors import AlreadyExists, NotFound, Unavailable, Unreachable
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.client import ManagerPool, open_unix_channel
from pyswarm.proto.rpc.tls import channel_credentials
from pyswarm.proto.v1 import runtime_pb2, runtime_pb2_grpc


@pytest.fixture
def ca() -> ClusterCA:
    return ClusterCA()


@pytest.fixture
def worker(ca: ClusterCA, tmp_path: Path) -> Path:
    return ca.issue(tmp_path / "w1", "w1")


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return "127.0.0.1:{}".format(*listener.getsockname()[1:])


async def test_a_closed_port_is_named_with_the_cause_and_what_to_look_at(worker: Path, closed_port: str):
    async with connect(closed_port, worker) as channel:
        for call in (renew(channel), listen(channel), publish(channel, ["a"])):
            with pytest.raises(Unreachable) as failed:
                await call
            assert failed.value.message == f"cannot reach {closed_port}: connection refused"
            assert "firewall" in failed.value.remedy


async def test_a_missing_socket_is_named(tmp_path: Path):
    async with open_unix_channel(tmp_path / "runtime.sock") as channel:
        with pytest.raises(Unreachable, match=r"runtime\.sock: the socket does not exist"):
            await runtime_pb2_grpc.RuntimeStub(channel).GetVersion(runtime_pb2.GetVersionRequest())


async def test_a_server_that_does_not_answer_in_time_is_named(worker: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "127.0.0.1:{}".format(*silent.getsockname()[1:])
        async with connect(address, worker) as channel:
            with pytest.raises(
                Unreachable, match=f"{address}(: the TLS handshake was not finished| did not answer in time)"
            ):
                await renew(channel, timeout=0.2)


async def test_a_manager_of_another_cluster_is_told_from_one_that_is_down(worker: Path, tmp_path: Path):
    other = ClusterCA("theirs").issue(tmp_path / "other", "m1", Role.MANAGER)
    async with serving(other, Greeter()) as address, connect(address, worker) as channel:
        with pytest.raises(Unreachable, match="not of this cluster") as failed:
            await renew(channel)
    assert "same cluster" in failed.value.remedy


@pytest.mark.parametrize(
    ("issued_days_ago", "reason"), [(3, "has expired"), (-3, "is not valid yet")], ids=["expired", "from the future"]
)
async def test_a_manager_whose_certificate_is_out_of_time_makes_one_look_at_the_clocks(
    ca: ClusterCA, worker: Path, tmp_path: Path, issued_days_ago: int, reason: str
):
    late = ca.issue(tmp_path / "m1", "m1", Role.MANAGER, issued_at=ca.now - issued_days_ago * DAY)
    async with serving(late, Greeter()) as address, connect(address, worker) as channel:
        with pytest.raises(Unreachable, match=reason) as failed:
            await renew(channel)
    assert "clocks" in failed.value.remedy


# -- the pool


class Managers:
    """Three managers, of which a test says which ones run."""

    def __init__(self, ca: ClusterCA, directory: Path, worker: Path) -> None:
        self.greeters = [Greeter(f"m{n}") for n in range(3)]
        self.certificates = [ca.issue(directory / g.name, g.name, Role.MANAGER) for g in self.greeters]
        self.addresses: list[str] = []
        self.worker = worker
        self.stacks: list[AsyncExitStack] = []

    async def start(self) -> None:
        for certificates, greeter in zip(self.certificates, self.greeters, strict=True):
            stack = AsyncExitStack()
            self.addresses.append(await stack.enter_async_context(serving(certificates, greeter)))
            self.stacks.append(stack)

    async def stop(self, number: int) -> None:
        await self.stacks[number].aclose()

    def pool(self) -> ManagerPool:
        return ManagerPool(self.addresses, lambda: channel_credentials(self.worker))


@pytest.fixture
async def managers(ca: ClusterCA, tmp_path: Path, worker: Path) -> AsyncIterator[Managers]:
    managers = Managers(ca, tmp_path, worker)
    await managers.start()
    yield managers
    for number in range(3):
        await managers.stop(number)


async def test_a_pool_stays_with_a_manager_that_answers(managers: Managers):
    pool = managers.pool()
    assert [await pool.call(renew) for _ in range(3)] == ["m0:w1"] * 3
    assert pool.address == managers.addresses[0]
    await pool.close()


async def test_a_pool_moves_on_when_its_manager_cannot_be_reached_and_remembers(managers: Managers):
    pool = managers.pool()
    await managers.stop(0)
    await managers.stop(1)
    assert await pool.call(renew) == "m2:w1"
    assert pool.address == managers.addresses[2]
    assert sorted(pool.addresses) == sorted(managers.addresses)
    await pool.close()


async def test_a_pool_tries_each_manager_once_and_says_why_the_last_one_failed(managers: Managers):
    pool = managers.pool()
    for number in range(3):
        managers.greeters[number].error = Unavailable(f"the cluster has no leader, says m{number}")
    with pytest.raises(Unavailable, match="says m2"):
        await pool.call(renew)
    assert [len(g.callers) for g in managers.greeters] == [1, 1, 1]
    await pool.close()


async def test_a_pool_does_not_ask_another_manager_about_an_answer_it_got(managers: Managers):
    pool = managers.pool()
    managers.greeters[0].error = NotFound("no such node")
    with pytest.raises(NotFound):
        await pool.call(renew)
    assert managers.greeters[1].callers == []
    await pool.close()


async def test_calls_that_fail_together_move_the_pool_by_one(managers: Managers):
    pool = managers.pool()
    failed = pool.address
    await pool.move_on(failed)
    await pool.move_on(failed)
    assert pool.address == managers.addresses[1]
    await pool.close()


async def test_a_pool_learns_the_present_managers_and_keeps_the_one_in_use(managers: Managers):
    pool = managers.pool()
    pool.update([managers.addresses[2], managers.addresses[0]])
    assert pool.addresses == (managers.addresses[0], managers.addresses[2])
    pool.update([managers.addresses[1], managers.addresses[2]])
    assert pool.addresses == (managers.addresses[1], managers.addresses[2])
    assert await pool.call(renew) == "m1:w1"
    pool.update([])
    assert pool.addresses == (managers.addresses[1], managers.addresses[2])
    await pool.close()


async def test_after_reconnecting_a_pool_shows_its_new_certificate(ca: ClusterCA, managers: Managers, tmp_path: Path):
    shown = [managers.worker, ca.issue(tmp_path / "w2", "w2")]
    pool = ManagerPool(managers.addresses, lambda: channel_credentials(shown[0]))
    assert await pool.call(renew) == "m0:w1"
    del shown[0]
    assert await pool.call(renew) == "m0:w1"
    await pool.reconnect()
    assert await pool.call(renew) == "m0:w2"
    await pool.close()


async def test_an_error_of_a_stream_with_streams_both_ways_is_translated(managers: Managers):
    managers.greeters[0].error = AlreadyExists("taken")
    async with connect(managers.addresses[0], managers.worker) as channel:
        call = channel.stream_stream("/pyswarm.v1.LogBroker/ListenSubscriptions")(iter([b""]))
        assert isinstance(channel, grpc.aio.Channel)
        with pytest.raises(AlreadyExists, match="taken"):
            await anext(aiter(call))


@pytest.mark.parametrize("call", [renew, listen, lambda channel: publish(channel, ["a"])], ids=["unary", "down", "up"])
async def test_a_call_whose_pool_moves_on_fails_as_unreachable_and_not_as_cancelled(managers: Managers, call):
    # Cancellation would end the task of whoever shares the pool, silently and for good.
    greeter = managers.greeters[0]
    greeter.hold = asyncio.Event()
    pool = managers.pool()
    under_way = asyncio.create_task(call(pool.channel()))
    await greeter.entered.wait()
    await pool.move_on()
    with pytest.raises(Unreachable, match=r"the connection to .* was closed"):
        await under_way
    greeter.hold.set()
    await pool.close()


async def test_a_call_that_is_cancelled_itself_stays_cancelled(managers: Managers):
    greeter = managers.greeters[0]
    greeter.hold = asyncio.Event()
    async with connect(managers.addresses[0], managers.worker) as channel:
        for call in (renew, listen):
            under_way = asyncio.create_task(call(channel))
            await greeter.entered.wait()
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            greeter.entered.clear()
    greeter.hold.set()
