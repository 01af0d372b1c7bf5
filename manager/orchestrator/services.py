"""Decide what the control API's requests about services, stacks and nodes change (pure).

Specs come in validated (proto/codec/validate.py); what depends on the rest of the cluster is judged here: names,
ports, versions. A stack is changed by one plan, so it is changed wholly or not at all.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.allocator.ports import allocate_ports
from pyswarm.manager.orchestrator.jobs import completed_slots
from pyswarm.manager.orchestrator.moves import desire
from pyswarm.manager.orchestrator.secrets import (
    apply_payloads,
    guarded,
    kind_of_payload,
    payloads_of_stack,
    remove_payload,
    with_references,
)
from pyswarm.manager.orchestrator.slots import NewId, slots_of
from pyswarm.manager.orchestrator.update import revision_for
from pyswarm.manager.store.changes import Change, Create, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from pyswarm.proto.model.objects import STACK_LABEL, JobStatus, Service, UpdateStatus
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec, ServiceSpec
from pyswarm.proto.model.states import TaskState, UpdateState


class StackChange(Struct, frozen=True):
    """What an apply did to one object; `action` is created, updated, unchanged or removed."""

    id: str
    name: str
    action: str
    kind: str = "service"


def create_service(seen: Snapshot, spec: ServiceSpec, *, new_id: NewId) -> Plan:
    """Raises AlreadyExists when the name or a port is taken."""
    spec = with_references(seen, spec)
    there = seen.service_by_name(spec.name)
    if there is not None:
        raise AlreadyExists(
            f"a service called {there.spec.name} already exists",
            remedy=f"Choose another name, or change it with `pyswarm service update {there.spec.name}`.",
        )
    service = _new_service(seen, spec, new_id)
    changes = guarded(seen, (Create(service), Create(revision_for(service))))
    return Plan(changes, why=f"service {spec.name} was created")


def _new_service(seen: Snapshot, spec: ServiceSpec, new_id: NewId) -> Service:
    job_status = JobStatus(iteration=1) if spec.mode.is_job else JobStatus()
    ports = allocate_ports(seen, spec, None)
    return Service(id=new_id(), spec=spec, spec_version=1, ports=ports, job_status=job_status)


def update_service(seen: Snapshot, service_id: str, version: int, spec: ServiceSpec, *, rollback: bool = False) -> Plan:
    """Raises OutOfSequence when the service is not at `version` any more, InvalidArgument for what cannot change."""
    service = _existing(seen, service_id)
    if version and service.version != version:
        raise OutOfSequence(f"service {service.spec.name} is at version {service.version}, not {version}")
    if rollback:
        if service.previous_spec is None:
            raise FailedPrecondition(
                f"service {service.spec.name} has no previous spec to go back to",
                remedy="Only the last update of a service can be rolled back, once.",
            )
        spec = service.previous_spec
    spec = with_references(seen, spec)
    _check_fixed(service, spec)
    changes = guarded(seen, _changed(seen, service, spec, rollback=rollback))
    return Plan(changes, why=f"service {spec.name} was updated")


def _check_fixed(service: Service, spec: ServiceSpec) -> None:
    if spec.name != service.spec.name:
        raise InvalidArgument("a service cannot be renamed", remedy="Create a new one and remove the old.")
    if spec.mode.name != service.spec.mode.name:
        raise InvalidArgument(
            f"service {spec.name} is {service.spec.mode.name} and cannot become {spec.mode.name}",
            remedy="Remove it and create it anew.",
        )


def _changed(seen: Snapshot, service: Service, spec: ServiceSpec, *, rollback: bool) -> tuple[Change, ...]:
    """Return the changes that give a service another spec: a new revision only if its tasks are affected."""
    ports = allocate_ports(seen, spec, service)
    affects_tasks = spec.task_template != service.spec.task_template or ports != service.ports
    is_job = spec.mode.is_job
    state = UpdateState.ROLLBACK_STARTED if rollback else UpdateState.UNSET
    changed = replace(
        service,
        spec=spec,
        previous_spec=service.spec,
        ports=ports,
        spec_version=service.spec_version + 1 if affects_tasks else service.spec_version,
        # Only a change of tasks begins an update; the reconciler stamps its start.
        update_status=UpdateStatus(state) if affects_tasks and not is_job else service.update_status,
        # Any change runs a job again (SwarmKit controlapi/service.go).
        job_status=JobStatus(iteration=service.job_status.iteration + 1) if is_job else service.job_status,
    )
    return (Update(changed), Create(revision_for(changed))) if affects_tasks else (Update(changed),)


def remove_service(seen: Snapshot, service_id: str) -> Plan:
    """The service goes at once; its tasks are stopped first and then reaped."""
    service = _existing(seen, service_id)
    return Plan(_removed(seen, service), why=f"service {service.spec.name} was removed")


def _removed(seen: Snapshot, service: Service) -> tuple[Change, ...]:
    tasks = [
        Update(desire(task, TaskState.REMOVE, f"service {service.spec.name} was removed"))
        for task in seen.tasks_of_service(service.id)
        if task.desired_state < TaskState.REMOVE
    ]
    return (Delete("service", service.id, service.version), *tasks)


def _existing(seen: Snapshot, service_id: str) -> Service:
    service = seen.service(service_id)
    if service is None:
        raise NotFound(f"no such service: {service_id}", remedy="`pyswarm service ls` lists what there is.")
    return service


def apply_stack(
    seen: Snapshot,
    name: str,
    specs: Sequence[ServiceSpec],
    *,
    payloads: Sequence[SecretSpec | ConfigSpec] = (),
    prune: bool,
    new_id: NewId,
) -> tuple[Plan, tuple[StackChange, ...]]:
    """Create, update and (with `prune`) remove services so that the stack is what `specs` say.

    `payloads` are the stack's secrets and configs: they are created with the services, or nothing is.

    Raises AlreadyExists when a name belongs to a service outside the stack, and whatever creating or updating raises.
    """
    if not name:
        raise InvalidArgument("the stack has no name", remedy="Name it: `pyswarm stack deploy -c FILE NAME`.")
    changes: list[Change] = []
    outcome: list[StackChange] = []
    # Each spec is judged against the cluster as those before it leave it, so that two of them cannot share a port.
    ahead = seen
    wanted = {spec.name.casefold() for spec in specs}
    gone = [s for s in seen.services() if s.stack == name and s.spec.name.casefold() not in wanted] if prune else []
    for service in gone:
        removed = _removed(seen, service)
        changes += removed
        ahead = ahead.with_changes(removed, version=seen.version + 1)
        outcome.append(StackChange(service.id, service.spec.name, "removed"))
    for change, action, payload in apply_payloads(ahead, payloads, new_id=new_id):
        changes.append(change)
        ahead = ahead.with_changes((change,), version=seen.version + 1)
        outcome.append(StackChange(payload.id, payload.spec.name, action, kind_of_payload(payload.spec)))
    for wish in specs:
        if wish.labels.get(STACK_LABEL) != name:
            raise InvalidArgument(f"service {wish.name} does not carry the label of stack {name}")
        spec = with_references(ahead, wish)
        there = ahead.service_by_name(spec.name)
        step: tuple[Change, ...] = ()
        if there is None:
            created = _new_service(ahead, spec, new_id)
            step = (Create(created), Create(revision_for(created)))
            outcome.append(StackChange(created.id, spec.name, "created"))
        elif there.stack != name:
            owner = f"stack {there.stack}" if there.stack else "no stack"
            raise AlreadyExists(
                f"a service called {spec.name} already exists and belongs to {owner}",
                remedy="Choose another name for the service or the stack.",
            )
        elif there.spec == spec:
            outcome.append(StackChange(there.id, spec.name, "unchanged"))
        else:
            _check_fixed(there, spec)
            step = _changed(ahead, there, spec, rollback=False)
            outcome.append(StackChange(there.id, spec.name, "updated"))
        changes += step
        ahead = ahead.with_changes(step, version=seen.version + 1)
    return Plan(guarded(seen, changes), why=f"stack {name} was deployed"), tuple(outcome)


def remove_stack(seen: Snapshot, name: str) -> tuple[Plan, tuple[StackChange, ...]]:
    """Raises NotFound when nothing belongs to the stack."""
    services = [service for service in seen.services() if service.stack == name]
    payloads = payloads_of_stack(seen, name, STACK_LABEL)
    if not services and not payloads:
        raise NotFound(f"nothing found in stack: {name}", remedy="`pyswarm stack ls` lists what there is.")
    changes = tuple(change for service in services for change in _removed(seen, service))
    outcome = tuple(StackChange(s.id, s.spec.name, "removed") for s in services)
    left = seen.with_changes(changes, version=seen.version + 1)
    for payload in payloads:
        changes += remove_payload(left, payload).changes
        outcome += (StackChange(payload.id, payload.spec.name, "removed", kind_of_payload(payload.spec)),)
    return Plan(changes, why=f"stack {name} was removed"), outcome


class Counts(Struct, frozen=True):
    """What `service ls` shows as REPLICAS; `completed` is of a job's present run."""

    running: int
    desired: int
    completed: int = 0


def service_counts(seen: Snapshot, service: Service) -> Counts:
    """Count a service's tasks."""
    wanted = [t for t in seen.tasks_of_service(service.id) if t.is_wanted]
    # A task on a node that is lost says RUNNING for ever: nobody can correct it.
    running = sum(1 for t in wanted if t.state is TaskState.RUNNING and t.desired_state >= TaskState.RUNNING)
    mode = service.spec.mode
    if mode.replicated is not None:
        return Counts(running, mode.replicated.replicas)
    live = sum(1 for t in wanted if not t.state.is_terminal)
    completed = len(completed_slots(service, slots_of(service, seen.tasks_of_service(service.id))))
    if mode.replicated_job is not None:
        left = mode.replicated_job.total_completions - completed
        return Counts(running, min(left, mode.replicated_job.max_concurrent or left), completed)
    return Counts(running, live, completed)
