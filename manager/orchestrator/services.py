"""Decide what the control API's requests about services change (pure). Stacks of them are stacks.py's.

Specs come in validated (proto/codec/validate.py); what depends on the rest of the cluster is judged here: names,
ports, versions.
"""

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.manager.allocator.ports import allocate_ports
from pyswarm.manager.orchestrator.jobs import completed_slots
from pyswarm.manager.orchestrator.moves import desire
from pyswarm.manager.orchestrator.secrets import guarded, with_references
from pyswarm.manager.orchestrator.slots import NewId, slots_of
from pyswarm.manager.orchestrator.update import revision_for
from pyswarm.manager.store.changes import Change, Create, Delete, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from pyswarm.proto.model.objects import CronStatus, JobStatus, Service, UpdateStatus
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import TaskState, UpdateState


def create_service(seen: Snapshot, spec: ServiceSpec, *, new_id: NewId) -> Plan:
    """Raises AlreadyExists when the name or a port is taken."""
    spec = with_references(seen, spec)
    there = seen.service_by_name(spec.name)
    if there is not None:
        raise AlreadyExists(
            f"a service called {there.spec.name} already exists",
            remedy=f"Choose another name, or change it with `pyswarm service update {there.spec.name}`.",
        )
    service = new_service(seen, spec, new_id)
    changes = guarded(seen, (Create(service), Create(revision_for(service))))
    return Plan(changes, why=f"service {spec.name} was created")


def new_service(seen: Snapshot, spec: ServiceSpec, new_id: NewId) -> Service:
    """Return a service of this spec, with its ports; its revision is the caller's to write."""
    runs_at_once = spec.mode.is_job and spec.schedule is None
    job_status = JobStatus(iteration=1) if runs_at_once else JobStatus()
    ports = allocate_ports(seen, spec, None)
    return Service(id=new_id(), spec=spec, spec_version=1, ports=ports, job_status=job_status, cron=_cron(spec))


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
    check_fixed(service, spec)
    changes = guarded(seen, changed_service(seen, service, spec, rollback=rollback))
    return Plan(changes, why=f"service {spec.name} was updated")


def _cron(spec: ServiceSpec) -> CronStatus:
    """Return a schedule that is yet to be followed: from when it is first looked at."""
    return CronStatus(forced=spec.task_template.force_update)


def hold_update(seen: Snapshot, service_id: str, version: int, *, resume: bool, now: float) -> Plan:
    """Pause an update or rollback that is under way, or let a paused one go on: what failed before is forgiven.

    Raises FailedPrecondition when there is nothing to pause or resume, OutOfSequence as `update_service`.
    """
    service = _existing(seen, service_id)
    if version and service.version != version:
        raise OutOfSequence(f"service {service.spec.name} is at version {service.version}, not {version}")
    state = service.update_status.state
    moves = RESUMES if resume else PAUSES
    if state not in moves:
        told = "paused" if resume else "under way"
        raise FailedPrecondition(
            f"no update of service {service.spec.name} is {told}",
            remedy=f"`pyswarm service inspect --pretty {service.spec.name}` shows how its update stands.",
        )
    # Only tasks made since `started_at` are held against an update.
    status = UpdateStatus(moves[state], now if resume else service.update_status.started_at)
    status = replace(status, message="resumed by request" if resume else "paused by request")
    return Plan((Update(replace(service, update_status=status)),), why=f"the update of {service.spec.name} was held")


PAUSES = {
    UpdateState.UPDATING: UpdateState.PAUSED,
    UpdateState.ROLLBACK_STARTED: UpdateState.ROLLBACK_PAUSED,
}
RESUMES = {paused: under_way for under_way, paused in PAUSES.items()}


def check_fixed(service: Service, spec: ServiceSpec) -> None:
    """Raises InvalidArgument for what cannot change in a service's life."""
    if spec.name != service.spec.name:
        raise InvalidArgument("a service cannot be renamed", remedy="Create a new one and remove the old.")
    if spec.mode.name != service.spec.mode.name:
        raise InvalidArgument(
            f"service {spec.name} is {service.spec.mode.name} and cannot become {spec.mode.name}",
            remedy="Remove it and create it anew.",
        )


def changed_service(seen: Snapshot, service: Service, spec: ServiceSpec, *, rollback: bool) -> tuple[Change, ...]:
    """Return the changes that give a service another spec: a new revision only if its tasks are affected."""
    ports = allocate_ports(seen, spec, service)
    affects_tasks = spec.task_template != service.spec.task_template or ports != service.ports
    is_job = spec.mode.is_job
    runs_again = is_job and spec.schedule is None
    keeps_schedule = spec.schedule == service.spec.schedule
    state = UpdateState.ROLLBACK_STARTED if rollback else UpdateState.UNSET
    changed = replace(
        service,
        spec=spec,
        previous_spec=service.spec,
        ports=ports,
        spec_version=service.spec_version + 1 if affects_tasks else service.spec_version,
        # Only a change of tasks begins an update; the reconciler stamps its start.
        update_status=UpdateStatus(state) if affects_tasks and not is_job else service.update_status,
        # Any change runs a job again (SwarmKit controlapi/service.go), unless it has a schedule to run by.
        job_status=JobStatus(iteration=service.job_status.iteration + 1) if runs_again else service.job_status,
        runs=() if runs_again else service.runs,
        cron=service.cron if keeps_schedule else replace(_cron(spec), forced=service.cron.forced),
    )
    return (Update(changed), Create(revision_for(changed))) if affects_tasks else (Update(changed),)


def remove_service(seen: Snapshot, service_id: str) -> Plan:
    """The service goes at once; its tasks are stopped first and then reaped."""
    service = _existing(seen, service_id)
    return Plan(removed_service(seen, service), why=f"service {service.spec.name} was removed")


def removed_service(seen: Snapshot, service: Service) -> tuple[Change, ...]:
    """Return the changes that remove a service and tell its tasks to stop."""
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


class Counts(Struct, frozen=True):
    """What `service ls` shows as REPLICAS; `completed` is of a job's present run."""

    running: int
    desired: int
    completed: int = 0


def service_counts(seen: Snapshot, service: Service) -> Counts:
    """Count a service's tasks."""
    # A task on a node that is lost says RUNNING for ever: nobody can correct it.
    running = seen.running_of_service(service.id)
    mode = service.spec.mode
    if mode.replicated is not None:
        return Counts(running, mode.replicated.replicas)
    live = sum(1 for t in seen.tasks_of_service(service.id) if t.is_live)
    completed = len(completed_slots(service, slots_of(service, seen.tasks_of_service(service.id))))
    if service.spec.schedule is not None and not service.job_status.is_active:
        return Counts(running, 0, completed)
    if mode.replicated_job is not None:
        left = mode.replicated_job.total_completions - completed
        return Counts(running, min(left, mode.replicated_job.max_concurrent or left), completed)
    return Counts(running, live, completed)
