"""Secrets and configs through the Control service: what comes in, what is kept, and what never goes out."""

import pytest
from lib.builders import FakeClock, a_cluster

from pyswarm.manager.api.control import ControlServicer
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import AlreadyExists, InvalidArgument, NotFound, OutOfSequence
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import types_pb2


@pytest.fixture
async def control() -> ControlServicer:
    store = Store()
    consensus = SingleNodeConsensus(store)
    writer = Writer(consensus, store, clock=FakeClock(), entropy=SYSTEM_ENTROPY)
    await writer.write((Create(a_cluster(version=0)),))
    return ControlServicer(store=store, writer=writer, consensus=consensus, clock=FakeClock(), entropy=SYSTEM_ENTROPY)


def secret(name: str = "key", data: bytes = b"hunter2") -> pb.CreateSecretRequest:
    return pb.CreateSecretRequest(spec=types_pb2.SecretSpec(name=name), data=data)


async def test_a_secret_is_kept_and_what_it_holds_does_not_come_back(control: ControlServicer):
    made = await control.CreateSecret(secret(), None)
    (listed,) = (await control.ListSecrets(pb.ListSecretsRequest(), None)).secrets
    assert (listed.id, listed.spec.name) == (made.id, "key")
    assert b"hunter2" not in made.SerializeToString() + listed.SerializeToString()
    with pytest.raises(AlreadyExists):
        await control.CreateSecret(secret(), None)
    await control.RemoveSecret(pb.RemoveSecretRequest(id="key"), None)
    with pytest.raises(NotFound):
        await control.RemoveSecret(pb.RemoveSecretRequest(id="key"), None)


async def test_a_config_comes_back_with_what_it_holds_and_only_its_labels_change(control: ControlServicer):
    request = pb.CreateConfigRequest(spec=types_pb2.ConfigSpec(name="site", data=b"content"))
    made = await control.CreateConfig(request, None)
    assert made.spec.data == b"content"
    update = pb.UpdateConfigRequest(id="site", version=made.version, labels={"a": "b"})
    changed = await control.UpdateConfig(update, None)
    assert (dict(changed.spec.labels), changed.spec.data) == ({"a": "b"}, b"content")
    with pytest.raises(OutOfSequence):
        await control.UpdateConfig(update, None)


@pytest.mark.parametrize("request_", [secret(data=b""), secret(name="a/b"), secret(data=bytes(500 * 1024))])
async def test_what_the_client_did_not_check_is_checked_here(
    control: ControlServicer, request_: pb.CreateSecretRequest
):
    with pytest.raises(InvalidArgument):
        await control.CreateSecret(request_, None)


async def test_a_backup_is_the_whole_store_at_one_version(control: ControlServicer):
    await control.CreateSecret(secret(), None)
    messages = [message async for message in control.Backup(pb.BackupRequest(), None)]
    facts = messages[0].facts
    assert facts.cluster_id == "cluster1"
    restored = Store()
    restored.restore(facts.version, [message.piece for message in messages[1:]])
    found = restored.view.secret_by_name("key")
    assert found is not None
    assert (found.spec.data, restored.view.version) == (b"hunter2", facts.version)
