"""The part of the Control service about many writes on one stream: decode, decide, have them written together, encode.

The writes of one request are decided in order (store/gather.py) and committed in as few entries as they fit: that is
what makes a write on a stream cost a small part of a call. One that is refused or overtaken is decided again by itself,
exactly as its own method would.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from pyswarm.manager.api.payloads import config_spec, secret_spec
from pyswarm.manager.api.selection import one_config, one_secret, one_service
from pyswarm.manager.orchestrator import services
from pyswarm.manager.orchestrator.secrets import create_payload, relabel_payload, remove_payload
from pyswarm.manager.store.batch import EntryTooLarge
from pyswarm.manager.store.changes import Create, Expect, Plan, Update
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.gather import Decide, gather
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.codec.validate import validate_service_spec
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import InvalidArgument, NotLeader, SwarmError, Unavailable
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.v1 import control_pb2 as pb

NewId = Callable[[], str]


class WriteMethods:
    """Mixed into the Control servicer."""

    _store: Store
    _writer: Writer
    _entropy: Entropy

    async def Write(self, requests: AsyncIterator[pb.WriteRequest], context: Any) -> AsyncIterator[pb.WriteResponse]:
        """Answer each request in turn; one that this manager cannot write ends the stream with the reason."""
        async for request in requests:
            yield pb.WriteResponse(results=await self._write_each(request.writes))

    async def _write_each(self, writes: Sequence[pb.ClusterWrite]) -> list[pb.WriteResult]:
        decisions = [_decision(write, self._entropy.new_id) for write in writes]
        results: list[pb.WriteResult] = []
        while len(results) < len(decisions):
            rest = decisions[len(results) :]
            written = await self._write_together(rest)
            results += written or [await self._write_alone(rest[0])]
        return results

    async def _write_together(self, decisions: Sequence[Decide]) -> list[pb.WriteResult]:
        """Commit the first of `decisions` as one, and return their results; none when the first must be alone."""
        gathered = gather(self._store.view, decisions)
        if len(gathered.plans) < 2:
            return []
        try:
            version = await self._writer.write(gathered.changes)
        except (Conflict, EntryTooLarge):
            return []
        return [pb.WriteResult(id=_written_id(plan), version=version) for plan in gathered.plans]

    async def _write_alone(self, decide: Decide) -> pb.WriteResult:
        try:
            version, plan = await self._writer.update(decide)
        except (NotLeader, Unavailable):
            # Of no write that follows could be said more.
            raise
        except SwarmError as error:
            return pb.WriteResult(error=pb.WriteError(code=error.code, message=error.message, remedy=error.remedy))
        return pb.WriteResult(id=_written_id(plan), version=version)


def _decision(write: pb.ClusterWrite, new_id: NewId) -> Decide:
    """Return the decision; for a write that no view can make right, one that says so."""
    try:
        return _DECISIONS[write.WhichOneof("what") or ""](write, new_id)
    except SwarmError as error:
        return _refusing(error)


def _refusing(error: SwarmError) -> Decide:
    def refuse(_: object) -> Plan:
        raise error

    return refuse


def _create_service(write: pb.ClusterWrite, new_id: NewId) -> Decide:
    spec = from_message(write.create_service.spec, ServiceSpec)
    validate_service_spec(spec)
    return lambda seen: services.create_service(seen, spec, new_id=new_id)


def _update_service(write: pb.ClusterWrite, _: NewId) -> Decide:
    request = write.update_service
    spec = from_message(request.spec, ServiceSpec)
    if not request.rollback:
        validate_service_spec(spec)
    return lambda seen: services.update_service(
        seen, one_service(seen, request.id).id, request.version, spec, rollback=request.rollback
    )


def _remove_service(write: pb.ClusterWrite, _: NewId) -> Decide:
    return lambda seen: services.remove_service(seen, one_service(seen, write.remove_service.id).id)


def _create_secret(write: pb.ClusterWrite, new_id: NewId) -> Decide:
    spec = secret_spec(write.create_secret.spec, write.create_secret.data)
    return lambda seen: create_payload(seen, spec, new_id=new_id)


def _update_secret(write: pb.ClusterWrite, _: NewId) -> Decide:
    request = write.update_secret
    labels = dict(request.labels)
    return lambda seen: relabel_payload(one_secret(seen, request.id), request.version, labels)


def _remove_secret(write: pb.ClusterWrite, _: NewId) -> Decide:
    return lambda seen: remove_payload(seen, one_secret(seen, write.remove_secret.id))


def _create_config(write: pb.ClusterWrite, new_id: NewId) -> Decide:
    spec = config_spec(write.create_config.spec)
    return lambda seen: create_payload(seen, spec, new_id=new_id)


def _update_config(write: pb.ClusterWrite, _: NewId) -> Decide:
    request = write.update_config
    labels = dict(request.labels)
    return lambda seen: relabel_payload(one_config(seen, request.id), request.version, labels)


def _remove_config(write: pb.ClusterWrite, _: NewId) -> Decide:
    return lambda seen: remove_payload(seen, one_config(seen, write.remove_config.id))


def _nothing(_write: pb.ClusterWrite, _: NewId) -> Decide:
    raise InvalidArgument("a write says nothing that this manager knows", remedy="Use a client of the same version.")


_DECISIONS: dict[str, Callable[[pb.ClusterWrite, NewId], Decide]] = {
    "create_service": _create_service,
    "update_service": _update_service,
    "remove_service": _remove_service,
    "create_secret": _create_secret,
    "update_secret": _update_secret,
    "remove_secret": _remove_secret,
    "create_config": _create_config,
    "update_config": _update_config,
    "remove_config": _remove_config,
    "": _nothing,
}


def _written_id(plan: Plan) -> str:
    """Decisions name first what they are about, behind what they only expect."""
    for change in plan.changes:
        if not isinstance(change, Expect):
            return change.object.id if isinstance(change, Create | Update) else change.id
    return ""
