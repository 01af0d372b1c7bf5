"""Decide what deploying, removing and rolling back a stack changes (pure).

A stack is changed by one plan, so it is changed wholly or not at all. What it was deployed as is remembered, and what
before that: a rollback deploys the latter, brings back services that were taken out and takes out those that were new.
"""

from collections.abc import Collection, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.orchestrator.secrets import (
    apply_payloads,
    guarded,
    kind_of_payload,
    payloads_of_stack,
    remove_payload,
    with_references,
)
from pyswarm.manager.orchestrator.services import changed_service, check_fixed, new_service, removed_service
from pyswarm.manager.orchestrator.slots import NewId
from pyswarm.manager.orchestrator.update import revision_for
from pyswarm.manager.store.changes import Change, Create, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from pyswarm.proto.model.objects import STACK_LABEL, Service, Stack
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec, ServiceSpec


class StackChange(Struct, frozen=True):
    """What an apply did to one object; `action` is created, updated, unchanged or removed."""

    id: str
    name: str
    action: str
    kind: str = "service"


Outcome = tuple[Plan, tuple[StackChange, ...]]


def apply_stack(
    seen: Snapshot,
    name: str,
    specs: Sequence[ServiceSpec],
    *,
    payloads: Sequence[SecretSpec | ConfigSpec] = (),
    prune: bool,
    new_id: NewId,
) -> Outcome:
    """Create, update and (with `prune`) remove services so that the stack is what `specs` say.

    `payloads` are the stack's secrets and configs: they are created with the services, or nothing is.

    Raises AlreadyExists when a name belongs to a service outside the stack, and whatever creating or updating raises.
    """
    if not name:
        raise InvalidArgument("the stack has no name", remedy="Name it: `pyswarm stack deploy -c FILE NAME`.")
    wanted = {spec.name.casefold() for spec in specs}
    gone = [s for s in seen.services() if s.stack == name and s.spec.name.casefold() not in wanted] if prune else []
    changes, outcome = _applied(seen, name, specs, payloads=payloads, gone=gone, new_id=new_id)
    changes += _remembered(seen.stack(name), name, tuple(specs))
    return Plan(guarded(seen, changes), why=f"stack {name} was deployed"), tuple(outcome)


def rollback_stack(seen: Snapshot, name: str, *, new_id: NewId) -> Outcome:
    """Make the stack what it was before its last deploy; doing it again undoes it.

    Raises NotFound for an unknown stack, FailedPrecondition when nothing is known of the time before.
    """
    stack = seen.stack(name)
    if stack is None:
        raise NotFound(f"nothing is known of stack {name}", remedy="`pyswarm stack ls` lists what there is.")
    if stack.deploys < 2:
        raise FailedPrecondition(
            f"stack {name} was deployed once: there is nothing to go back to",
            remedy=f"Deploy another file, or remove the stack: `pyswarm stack rm {name}`.",
        )
    kept = {spec.name.casefold() for spec in stack.previous}
    new = {spec.name.casefold() for spec in stack.services} - kept
    gone = [s for s in seen.services() if s.stack == name and s.spec.name.casefold() in new]
    changes, outcome = _applied(seen, name, stack.previous, payloads=(), gone=gone, new_id=new_id)
    changes += _remembered(stack, name, stack.previous)
    return Plan(guarded(seen, changes), why=f"stack {name} was rolled back"), tuple(outcome)


def remove_stack(seen: Snapshot, name: str) -> Outcome:
    """Raises NotFound when nothing belongs to the stack."""
    services = [service for service in seen.services() if service.stack == name]
    payloads = payloads_of_stack(seen, name, STACK_LABEL)
    stack = seen.stack(name)
    if not services and not payloads and stack is None:
        raise NotFound(f"nothing found in stack: {name}", remedy="`pyswarm stack ls` lists what there is.")
    changes = tuple(change for service in services for change in removed_service(seen, service))
    outcome = tuple(StackChange(s.id, s.spec.name, "removed") for s in services)
    left = seen.with_changes(changes, version=seen.version + 1)
    for payload in payloads:
        changes += remove_payload(left, payload).changes
        outcome += (StackChange(payload.id, payload.spec.name, "removed", kind_of_payload(payload.spec)),)
    if stack is not None:
        changes += (Delete("stack", stack.id, stack.version),)
    return Plan(changes, why=f"stack {name} was removed"), outcome


def _applied(
    seen: Snapshot,
    name: str,
    specs: Sequence[ServiceSpec],
    *,
    payloads: Sequence[SecretSpec | ConfigSpec],
    gone: Collection[Service],
    new_id: NewId,
) -> tuple[list[Change], list[StackChange]]:
    changes: list[Change] = []
    outcome: list[StackChange] = []
    # Each spec is judged against the cluster as those before it leave it, so that two of them cannot share a port.
    ahead = seen
    for service in gone:
        removed = removed_service(seen, service)
        changes += removed
        ahead = ahead.with_changes(removed, version=seen.version + 1)
        outcome.append(StackChange(service.id, service.spec.name, "removed"))
    for change, action, payload in apply_payloads(ahead, payloads, new_id=new_id):
        changes.append(change)
        ahead = ahead.with_changes((change,), version=seen.version + 1)
        outcome.append(StackChange(payload.id, payload.spec.name, action, kind_of_payload(payload.spec)))
    for wish in specs:
        step, told = _service_step(ahead, name, wish, new_id)
        changes += step
        outcome.append(told)
        ahead = ahead.with_changes(step, version=seen.version + 1)
    return changes, outcome


def _service_step(
    ahead: Snapshot, name: str, wish: ServiceSpec, new_id: NewId
) -> tuple[tuple[Change, ...], StackChange]:
    if wish.labels.get(STACK_LABEL) != name:
        raise InvalidArgument(f"service {wish.name} does not carry the label of stack {name}")
    spec = with_references(ahead, wish)
    there = ahead.service_by_name(spec.name)
    if there is None:
        created = new_service(ahead, spec, new_id)
        return (Create(created), Create(revision_for(created))), StackChange(created.id, spec.name, "created")
    if there.stack != name:
        owner = f"stack {there.stack}" if there.stack else "no stack"
        raise AlreadyExists(
            f"a service called {spec.name} already exists and belongs to {owner}",
            remedy="Choose another name for the service or the stack.",
        )
    if there.spec == spec:
        return (), StackChange(there.id, spec.name, "unchanged")
    check_fixed(there, spec)
    return changed_service(ahead, there, spec, rollback=False), StackChange(there.id, spec.name, "updated")


def _remembered(stack: Stack | None, name: str, specs: tuple[ServiceSpec, ...]) -> list[Change]:
    """What the stack is from now on, as it was wished for: references are made anew when it is deployed again."""
    if stack is None:
        return [Create(Stack(id=name, services=specs))]
    if stack.services == specs:
        return []
    return [Update(replace(stack, services=specs, previous=stack.services, deploys=stack.deploys + 1))]
