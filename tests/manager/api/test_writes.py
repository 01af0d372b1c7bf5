"""Many writes on one stream: each takes effect by itself, in order, and says what became of it."""

from collections.abc import AsyncIterator

import pytest
from lib.builders import FakeClock, a_cluster, a_service

from pyswarm.manager.api.control import ControlServicer
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import Unavailable
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import types_pb2


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def control(store: Store) -> ControlServicer:
    consensus = SingleNodeConsensus(store)
    writer = Writer(consensus, store, clock=FakeClock(), entropy=SYSTEM_ENTROPY)
    await writer.write((Create(a_cluster(version=0)),))
    return ControlServicer(store=store, writer=writer, consensus=consensus, clock=FakeClock(), entropy=SYSTEM_ENTROPY)


def config(name: str, data: bytes = b"content") -> pb.ClusterWrite:
    spec = types_pb2.ConfigSpec(name=name, data=data)
    return pb.ClusterWrite(create_config=pb.CreateConfigRequest(spec=spec))


def service(name: str) -> pb.ClusterWrite:
    spec = to_message(a_service("any", name=name).spec, types_pb2.ServiceSpec)
    return pb.ClusterWrite(create_service=pb.CreateServiceRequest(spec=spec))


def relabel(name: str, value: str) -> pb.ClusterWrite:
    return pb.ClusterWrite(update_config=pb.UpdateConfigRequest(id=name, labels={"a": value}))


def remove(name: str) -> pb.ClusterWrite:
    return pb.ClusterWrite(remove_config=pb.RemoveConfigRequest(id=name))


async def ask(control: ControlServicer, *requests: list[pb.ClusterWrite]) -> list[list[pb.WriteResult]]:
    async def stream() -> AsyncIterator[pb.WriteRequest]:
        for writes in requests:
            yield pb.WriteRequest(writes=writes)

    return [list(response.results) async for response in control.Write(stream(), None)]


async def test_each_request_is_answered_with_a_result_for_each_of_its_writes(control: ControlServicer, store: Store):
    first, second = await ask(control, [config("a"), service("web")], [config("b")])
    assert [len(first), len(second)] == [2, 1]
    seen = store.view
    assert [r.id for r in first] == [seen.config_by_name("a").id, seen.service_by_name("web").id]
    assert not any(r.HasField("error") for r in (*first, *second))
    assert second[0].version > first[0].version > 0


async def test_writes_that_do_not_touch_each_other_are_committed_as_one(control: ControlServicer):
    (results,) = await ask(control, [config(f"c{number}") for number in range(150)])
    assert len({r.version for r in results}) == 1
    assert len({r.id for r in results}) == 150


async def test_more_writes_than_one_entry_takes_are_committed_in_several(control: ControlServicer, store: Store):
    (results,) = await ask(control, [config(f"c{number}") for number in range(450)])
    assert len({r.version for r in results}) == 3
    assert len(list(store.view.configs())) == 450


async def test_a_write_that_is_refused_holds_up_no_other(control: ControlServicer, store: Store):
    bad, empty = config("a/b"), pb.ClusterWrite()
    (results,) = await ask(control, [config("a"), config("a"), bad, empty, remove("nobody"), config("b")])
    assert [r.error.code for r in results] == [
        "", "already-exists", "invalid-argument", "invalid-argument", "not-found", "",
    ]  # fmt: skip
    assert {c.spec.name for c in store.view.configs()} == {"a", "b"}
    assert all(r.error.message for r in results[1:5])


async def test_writes_to_one_object_take_effect_in_their_order(control: ControlServicer, store: Store):
    (results,) = await ask(control, [config("a"), relabel("a", "1"), relabel("a", "2"), config("b"), remove("a")])
    assert not any(r.HasField("error") for r in results)
    assert [c.spec.name for c in store.view.configs()] == ["b"]
    assert len({r.id for r in (*results[:3], results[4])}) == 1


async def test_writes_too_large_for_one_entry_are_committed_one_by_one(control: ControlServicer, store: Store):
    (results,) = await ask(control, [config(f"c{number}", bytes(480 * 1024)) for number in range(5)])
    assert not any(r.HasField("error") for r in results)
    assert len(list(store.view.configs())) == 5


async def test_a_write_overtaken_by_another_is_decided_again_by_itself(
    control: ControlServicer, store: Store, monkeypatch: pytest.MonkeyPatch
):
    """Somebody else takes a name between the decision and the commit."""
    inner, other = control._writer.write, control._writer

    async def write(changes, **options):
        monkeypatch.setattr(other, "write", inner)
        await control.CreateConfig(config("b").create_config, None)
        return await inner(changes, **options)

    await ask(control, [config("a"), config("z")])
    monkeypatch.setattr(other, "write", write)
    (results,) = await ask(control, [relabel("a", "1"), remove("z")])
    assert not any(r.HasField("error") for r in results)
    assert {c.spec.name for c in store.view.configs()} == {"a", "b"}


async def test_a_manager_that_cannot_write_ends_the_stream(control: ControlServicer, monkeypatch: pytest.MonkeyPatch):
    async def refuse(*_: object, **__: object) -> None:
        raise Unavailable("no majority of the managers is in reach")

    monkeypatch.setattr(control._writer, "write", refuse)
    with pytest.raises(Unavailable):
        await ask(control, [config("a"), config("b")])
