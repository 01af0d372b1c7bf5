"""The part of the Control service about secrets and configs: decode, decide, have it written, encode.

What a secret holds comes in once and never goes out here; only `api/dispatcher.py` hands it on, to the nodes that
need it.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from pyswarm.manager.api.selection import find_configs, find_secrets, one_config, one_secret
from pyswarm.manager.orchestrator.secrets import (
    create_payload,
    newest_config,
    newest_secret,
    relabel_payload,
    remove_payload,
)
from pyswarm.manager.orchestrator.versions import Rotation, prune_payloads, rotate_payload
from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.changes import Create, Plan
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.codec.messages import from_message, to_message
from pyswarm.proto.codec.validate_payload import validate_payload
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import Config, Secret
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import types_pb2


def secret_spec(message: types_pb2.SecretSpec, data: bytes) -> SecretSpec:
    """Return a valid spec. Raises InvalidArgument."""
    spec = SecretSpec(name=message.name, labels=dict(message.labels), data=data)
    validate_payload(spec)
    return spec


def config_spec(message: types_pb2.ConfigSpec) -> ConfigSpec:
    """Return a valid spec. Raises InvalidArgument."""
    spec = from_message(message, ConfigSpec)
    validate_payload(spec)
    return spec


class PayloadMethods:
    """Mixed into the Control servicer."""

    _store: Store
    _writer: Writer
    _consensus: Consensus
    _entropy: Entropy

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Any) -> types_pb2.Secret:
        spec = secret_spec(request.spec, request.data)
        id = await self._create(spec)
        return to_message(one_secret(self._store.view, id), types_pb2.Secret)

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, context: Any) -> types_pb2.Secret:
        labels = dict(request.labels)
        await self._writer.update(lambda seen: relabel_payload(one_secret(seen, request.id), request.version, labels))
        return to_message(one_secret(self._store.view, request.id), types_pb2.Secret)

    async def RemoveSecret(self, request: pb.RemoveSecretRequest, context: Any) -> pb.RemoveSecretResponse:
        await self._writer.update(lambda seen: remove_payload(seen, one_secret(seen, request.id)))
        return pb.RemoveSecretResponse()

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Any) -> pb.ListSecretsResponse:
        await self._consensus.read_barrier()
        seen = self._store.view
        found = find_secrets(seen, request.ids)
        return pb.ListSecretsResponse(secrets=[to_message(s, types_pb2.Secret) for s in found], version=seen.version)

    async def CreateConfig(self, request: pb.CreateConfigRequest, context: Any) -> types_pb2.Config:
        id = await self._create(config_spec(request.spec))
        return to_message(one_config(self._store.view, id), types_pb2.Config)

    async def UpdateConfig(self, request: pb.UpdateConfigRequest, context: Any) -> types_pb2.Config:
        labels = dict(request.labels)
        await self._writer.update(lambda seen: relabel_payload(one_config(seen, request.id), request.version, labels))
        return to_message(one_config(self._store.view, request.id), types_pb2.Config)

    async def RemoveConfig(self, request: pb.RemoveConfigRequest, context: Any) -> pb.RemoveConfigResponse:
        await self._writer.update(lambda seen: remove_payload(seen, one_config(seen, request.id)))
        return pb.RemoveConfigResponse()

    async def ListConfigs(self, request: pb.ListConfigsRequest, context: Any) -> pb.ListConfigsResponse:
        await self._consensus.read_barrier()
        seen = self._store.view
        found = find_configs(seen, request.ids)
        return pb.ListConfigsResponse(configs=[to_message(c, types_pb2.Config) for c in found], version=seen.version)

    async def RotatePayload(self, request: pb.RotatePayloadRequest, context: Any) -> pb.RotatePayloadResponse:
        rotation: Rotation | None = None

        def rotate(seen: Snapshot) -> Plan:
            nonlocal rotation
            payload = _one_payload(seen, request.kind, request.name)
            validate_payload(replace(payload.spec, data=request.data))
            plan, rotation = rotate_payload(seen, payload, request.data, new_id=self._entropy.new_id)
            return plan

        _, plan = await self._writer.update(rotate)
        assert rotation is not None
        made = rotation.payload
        return pb.RotatePayloadResponse(
            id=made.id,
            name=made.spec.name,
            service_ids=rotation.service_ids,
            removed=rotation.removed,
            is_new=bool(plan.changes),
        )

    async def PrunePayloads(self, request: pb.PrunePayloadsRequest, context: Any) -> pb.PrunePayloadsResponse:
        _check_kind(request.kind)
        names: Sequence[str] = ()

        def prune(seen: Snapshot) -> Plan:
            nonlocal names
            plan, names = prune_payloads(seen, request.kind, everything=request.everything)
            return plan

        await self._writer.update(prune)
        return pb.PrunePayloadsResponse(names=names)

    async def _create(self, spec: SecretSpec | ConfigSpec) -> str:
        """Write a new secret or config and return its id."""
        _, plan = await self._writer.update(lambda seen: create_payload(seen, spec, new_id=self._entropy.new_id))
        return _created(plan)


def _created(plan: Plan) -> str:
    (change,) = plan.changes
    assert isinstance(change, Create)
    return change.object.id


def _check_kind(kind: str) -> None:
    if kind not in ("secret", "config"):
        raise InvalidArgument(f"{kind!r} has no versions", remedy="Name a secret or a config.")


def _one_payload(seen: Snapshot, kind: str, name: str) -> Secret | Config:
    """Return the secret or config of this id, id prefix or name, of which only later versions may be left."""
    _check_kind(kind)
    if kind == "secret":
        return newest_secret(seen, name) or one_secret(seen, name)
    return newest_config(seen, name) or one_config(seen, name)
