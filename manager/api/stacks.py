"""The part of the Control service about stacks: decode, decide, have it written or only foreseen, encode."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pyswarm.manager.api.payloads import config_spec, secret_spec
from pyswarm.manager.explain.differences import differences
from pyswarm.manager.explain.preview import Forecast, changed_specs, forecast
from pyswarm.manager.orchestrator.stacks import Outcome, StackChange, apply_stack, remove_stack, rollback_stack
from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.changes import Plan
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.codec.validate import validate_service_spec
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec, ServiceSpec
from pyswarm.proto.v1 import control_pb2 as pb


class StackMethods:
    """Mixed into the Control servicer."""

    _store: Store
    _writer: Writer
    _consensus: Consensus
    _entropy: Entropy
    _clock: Clock

    async def ApplyStack(self, request: pb.ApplyStackRequest, context: Any) -> pb.ApplyStackResponse:
        version, changes = await self._write(self._applied(request))
        return pb.ApplyStackResponse(changes=changes, version=version)

    async def RollbackStack(self, request: pb.RollbackStackRequest, context: Any) -> pb.ApplyStackResponse:
        version, changes = await self._write(
            lambda seen: rollback_stack(seen, request.name, new_id=self._entropy.new_id)
        )
        return pb.ApplyStackResponse(changes=changes, version=version)

    async def RemoveStack(self, request: pb.RemoveStackRequest, context: Any) -> pb.RemoveStackResponse:
        _, changes = await self._write(lambda seen: remove_stack(seen, request.name))
        return pb.RemoveStackResponse(changes=changes)

    async def PlanStack(self, request: pb.ApplyStackRequest, context: Any) -> pb.StackPlan:
        await self._consensus.read_barrier()
        seen = self._store.view
        plan, outcome = self._applied(request)(seen)
        # It takes the decisions of a whole deploy: nothing to keep the event loop waiting for.
        return await asyncio.to_thread(_plan_message, seen, plan, outcome, self._clock.now())

    def _applied(self, request: pb.ApplyStackRequest) -> Callable[[Snapshot], Outcome]:
        """Return the decision; raise InvalidArgument for what no view can make right."""
        specs = [from_message(message, ServiceSpec) for message in request.services]
        for spec in specs:
            validate_service_spec(spec)
        payloads: list[SecretSpec | ConfigSpec] = [secret_spec(s.spec, s.data) for s in request.secrets]
        payloads += [config_spec(message) for message in request.configs]
        return lambda seen: apply_stack(
            seen, request.name, specs, payloads=payloads, prune=request.prune, new_id=self._entropy.new_id
        )

    async def _write(self, decide: Callable[[Snapshot], Outcome]) -> tuple[int, list[pb.StackChange]]:
        outcome: Sequence[StackChange] = ()

        def decided(seen: Snapshot) -> Plan:
            nonlocal outcome
            plan, outcome = decide(seen)
            return plan

        version, _ = await self._writer.update(decided)
        return version, [_change_message(change) for change in outcome]


def _plan_message(seen: Snapshot, plan: Plan, outcome: Sequence[StackChange], now: float) -> pb.StackPlan:
    after = seen.with_changes(plan.changes, version=seen.version + 1)
    affected = {c.id: c for c in outcome if c.kind == "service" and c.action != "unchanged"}
    found = {f.service_id: f for f in forecast(seen, plan.changes, affected, now=now)}
    return pb.StackPlan(
        services=[_planned(seen, after, affected[id], found[id]) for id in affected],
        others=[_change_message(c) for c in outcome if c.id not in affected],
        version=seen.version,
    )


def _planned(seen: Snapshot, after: Snapshot, change: StackChange, found: Forecast) -> pb.PlannedService:
    specs = changed_specs(seen, after, change.id)
    return pb.PlannedService(
        change=_change_message(change),
        differences=() if specs is None else differences(*specs),
        kept=found.kept,
        stopped=found.stopped,
        tasks=[
            pb.PlannedTask(slot=t.slot, node=t.node, instead_of=t.instead_of, why_not=t.why_not) for t in found.starts
        ],
    )


def _change_message(change: StackChange) -> pb.StackChange:
    return pb.StackChange(id=change.id, name=change.name, action=change.action, kind=change.kind)
