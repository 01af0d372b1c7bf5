"""What the log broker tells nodes and readers: who is waited for, who is noted as missing, when a reading ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from lib.builders import a_cluster, a_node, a_revision, a_service, a_task

from pyswarm.manager.api import logs
from pyswarm.manager.api.logs import LogBroker
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Create, Plan
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.states import NodeState
from pyswarm.proto.v1 import logs_pb2 as pb

WEB = a_service("web", replicas=2)


@pytest.fixture
async def broker() -> LogBroker:
    """A service with a task on each of two nodes that are up, and one on a node that is down."""
    store = Store()
    consensus = SingleNodeConsensus(store)
    objects = [
        a_cluster(),
        *(a_node(id) for id in ("n1", "n2")),
        a_node("n3", state=NodeState.DOWN),
        WEB,
        a_revision(WEB),
        *(a_task(f"t{slot}", service=WEB, slot=slot, node=f"n{slot}") for slot in (1, 2, 3)),
    ]
    writer = Writer(consensus, store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
    await writer.update(lambda _: Plan(tuple(Create(o) for o in objects), why="a test"))
    return LogBroker(store=store, entropy=SYSTEM_ENTROPY)


def wish(*tasks: str, follow: bool = False) -> pb.SubscribeLogsRequest:
    return pb.SubscribeLogsRequest(task_ids=tasks, options=pb.LogOptions(follow=follow, tail=-1))


async def read(broker: LogBroker, request: pb.SubscribeLogsRequest) -> list[str]:
    return [line.note or line.data.decode() for line in [line async for line in broker.subscribe(request)]]


async def serve(broker: LogBroker, node: str, *lines: str) -> None:
    """Answer one subscription as a node would."""
    orders = broker.listen(node)
    order = await anext(orders)

    async def messages() -> AsyncIterator[pb.PublishLogsMessage]:
        for line in lines:
            message = pb.LogMessage(task_id=order.task_ids[0], data=line.encode())
            yield pb.PublishLogsMessage(subscription_id=order.id, messages=[message])
        yield pb.PublishLogsMessage(subscription_id=order.id, done=True)

    await broker.publish(node, messages())
    await orders.aclose()


async def test_every_node_that_holds_a_task_is_asked(broker: LogBroker):
    serving = [asyncio.create_task(serve(broker, f"n{n}", f"of n{n}")) for n in (1, 2)]
    assert sorted(await read(broker, wish("t1", "t2"))) == ["of n1", "of n2"]
    await asyncio.gather(*serving)


async def test_a_node_that_is_up_and_comes_to_listen_a_little_later_is_waited_for(broker: LogBroker):
    reading = asyncio.create_task(read(broker, wish("t1", "t2")))
    await serve(broker, "n1", "of n1")
    assert not reading.done()
    await serve(broker, "n2", "of n2")
    assert await reading == ["of n1", "of n2"]


async def test_a_node_that_never_listens_is_noted_in_the_end(broker: LogBroker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "LISTENING_SECONDS_MAX", 0.05)
    serving = asyncio.create_task(serve(broker, "n1", "of n1"))
    assert await read(broker, wish("t1", "t2")) == ["of n1", "node n2 is not connected: its logs are missing"]
    await serving


async def test_a_node_that_is_down_is_not_waited_for(broker: LogBroker):
    async with asyncio.timeout(logs.LISTENING_SECONDS_MAX / 2):
        assert await read(broker, wish("t3")) == ["node n3 is not connected: its logs are missing"]


async def test_a_node_that_goes_while_it_publishes_is_noted_and_not_waited_for(broker: LogBroker):
    reading = asyncio.create_task(read(broker, wish("t1")))
    orders = broker.listen("n1")
    assert (await anext(orders)).task_ids == ["t1"]
    await orders.aclose()
    assert await reading == ["node n1 has lost its connection: logs may be missing"]


async def test_someone_who_follows_is_told_and_gets_the_lines_of_a_node_that_comes_back(broker: LogBroker):
    stream = broker.subscribe(wish("t1", follow=True))
    line = asyncio.ensure_future(anext(stream))
    orders = broker.listen("n1")
    assert (await anext(orders)).options.tail == -1
    await orders.aclose()
    assert "lost its connection" in (await line).note
    again = broker.listen("n1")
    assert (await anext(again)).options.tail == 0, "what was published is not published again"
    await again.aclose()
    await stream.aclose()
