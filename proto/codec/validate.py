"""Judge specs before they are stored: services, nodes, the cluster (pure).

The rules are Swarm's (SwarmKit manager/controlapi/service.go); every problem of a spec is told at once.
Whether names and ports are free is the API's question, since it depends on the store; what a container
may look like is in validate_container.py.
"""

import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Final

from pyswarm.proto.codec.affinity import parse_affinity
from pyswarm.proto.codec.canary import canary_problems
from pyswarm.proto.codec.constraint import parse_constraint, parse_preference
from pyswarm.proto.codec.cron import check_schedule
from pyswarm.proto.codec.generic_resources import parse_reservation
from pyswarm.proto.codec.log_settings import log_driver_problems
from pyswarm.proto.codec.problems import Problem, caught, negative, raise_if_any
from pyswarm.proto.codec.validate_container import container_problems
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.resources import ResourceRequirements, Resources
from pyswarm.proto.model.spec import (
    MODES,
    PRIORITY_MAX,
    ClusterSpec,
    EndpointSpec,
    MoveConfig,
    NodeSpec,
    Placement,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import FailureAction, PlacementStrategy, PublishMode

MAX_NAME_LENGTH: Final = 63
MIN_NANO_CPUS: Final = 1_000_000
MIN_MEMORY_BYTES: Final = 4 * 1024**2
MAX_REPLICAS: Final = 1_000_000
"""Beyond what a cluster holds: a slip of the finger, which would have the orchestrator make as many tasks."""

MIN_CERT_EXPIRY_SECONDS: Final = 3600.0
MIN_HEARTBEAT_SECONDS: Final = 0.1

_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*")


def validate_service_spec(spec: ServiceSpec) -> None:
    """Raise `InvalidArgument` (or `InvalidReference`) telling all that is wrong with `spec`."""
    subject = f"service {spec.name}" if _NAME.fullmatch(spec.name) else "service"
    raise_if_any(subject, service_problems(spec))


def validate_node_spec(spec: NodeSpec) -> None:
    """Raise `InvalidArgument` telling all that is wrong with `spec`."""
    raise_if_any("node", _node_problems(spec))


def validate_cluster_spec(spec: ClusterSpec) -> None:
    """Raise `InvalidArgument` telling all that is wrong with `spec`."""
    raise_if_any("cluster", _cluster_problems(spec))


def service_problems(spec: ServiceSpec) -> Iterator[Problem]:
    """Yield what is wrong with `spec`, so that a stack file's reader can add its line numbers."""
    template = spec.task_template
    yield from _name_problems("service name", spec.name)
    yield from _label_problems(spec.labels)
    yield from container_problems(template.container_spec)
    yield from _requirement_problems(template.resources)
    yield from _restart_problems(template.restart_policy)
    yield from _placement_problems(template.placement)
    yield from negative("force_update", template.force_update)
    yield from log_driver_problems(template.log_driver)
    yield from _mode_problems(spec.mode)
    yield from _job_problems(spec)
    yield from _update_problems("update", spec.update_config)
    yield from _update_problems("rollback", spec.rollback_config)
    yield from negative("move parallelism", spec.move_config.parallelism)
    if spec.move_config != MoveConfig() and spec.mode.replicated is None:
        yield Problem("only replicated services are moved and rebalanced", "Leave the move configuration out.")
    yield from _schedule_problems(spec)
    if spec.rollback_config.failure_action is FailureAction.ROLLBACK:
        yield Problem("a rollback that fails cannot roll back again", "Let a failed rollback pause or continue.")
    yield from _endpoint_problems(spec.endpoint_spec)


def _name_problems(what: str, name: str) -> Iterator[Problem]:
    if not name:
        yield Problem(f"the {what} is missing", f"Give it a {what}.")
    elif len(name) > MAX_NAME_LENGTH:
        yield Problem(f"the {what} has {len(name)} characters", f"Use at most {MAX_NAME_LENGTH}.")
    elif not _NAME.fullmatch(name):
        yield Problem(
            f"the {what} {name!r} is not valid as a DNS name component",
            "Use letters, digits, dashes and underscores, with a letter or digit at both ends.",
        )


def _label_problems(labels: Mapping[str, str]) -> Iterator[Problem]:
    for key in labels:
        if not key or any(c.isspace() or c == "=" for c in key):
            yield Problem(f"{key!r} is no label", "A label's name is not empty and has neither spaces nor =.")


def _requirement_problems(requirements: ResourceRequirements) -> Iterator[Problem]:
    yield from _resource_problems("limit", requirements.limits)
    yield from _resource_problems("reservation", requirements.reservations)
    if requirements.limits.generic:
        yield Problem("generic resources cannot be limited", "Reserve them.")
    kinds = [need.kind for need in requirements.reservations.generic]
    for need in requirements.reservations.generic:
        yield from caught(parse_reservation, f"{need.kind}={need.name or need.count}")
        if kinds.count(need.kind) > 1:
            yield Problem(f"generic resource {need.kind} is reserved twice", "Add the numbers up.")


def _resource_problems(what: str, resources: Resources) -> Iterator[Problem]:
    if resources.nano_cpus and resources.nano_cpus < MIN_NANO_CPUS:
        yield Problem(f"the CPU {what} is {resources.nano_cpus / 1e9:g}", "Give at least 0.001 CPUs, or none.")
    if resources.memory_bytes and resources.memory_bytes < MIN_MEMORY_BYTES:
        yield Problem(f"the memory {what} is {resources.memory_bytes} bytes", "Give at least 4 MiB, or none.")
    yield from negative(f"pids {what}", resources.pids)


def _restart_problems(policy: RestartPolicy) -> Iterator[Problem]:
    yield from _unset("restart condition", policy.condition)
    yield from negative("restart delay", policy.delay_seconds)
    yield from negative("restart max attempts", policy.max_attempts)
    yield from negative("restart window", policy.window_seconds)
    yield from negative("restart max delay", policy.max_delay_seconds)


def _placement_problems(placement: Placement) -> Iterator[Problem]:
    for constraint in placement.constraints:
        yield from caught(parse_constraint, constraint)
    for preference in placement.preferences:
        yield from caught(parse_preference, preference)
    for affinity in placement.affinities:
        yield from caught(parse_affinity, affinity)
    yield from _unset("placement strategy", placement.strategy)
    if placement.strategy is PlacementStrategy.BINPACK and placement.preferences:
        yield Problem(
            "spreading over labels does not go with bin packing", "Leave the preferences out, or the strategy."
        )
    if abs(placement.priority) > PRIORITY_MAX:
        yield Problem(f"the priority is {placement.priority}", f"Give one from -{PRIORITY_MAX} to {PRIORITY_MAX}.")
    yield from negative("max replicas per node", placement.max_replicas)


def _mode_problems(mode: ServiceMode) -> Iterator[Problem]:
    if mode.count != 1:
        which = "no mode" if mode.count == 0 else f"{mode.count} modes"
        yield Problem(f"it has {which}", f"Give it one of {', '.join(MODES)}.")
    if mode.replicated is not None and not 0 <= mode.replicated.replicas <= MAX_REPLICAS:
        yield Problem(f"replicas is {mode.replicated.replicas}", f"Ask for 0 to {MAX_REPLICAS} replicas.")
    if (job := mode.replicated_job) is not None:
        if not 1 <= job.total_completions <= MAX_REPLICAS:
            yield Problem(
                f"a job with {job.total_completions} tasks to complete", f"Ask for 1 to {MAX_REPLICAS} replicas."
            )
        yield from negative("max concurrent", job.max_concurrent)


def _job_problems(spec: ServiceSpec) -> Iterator[Problem]:
    """A job is run again, not rolled over, and ends (SwarmKit controlapi/service.go)."""
    if not spec.mode.is_job:
        return
    if spec.update_config != UpdateConfig() or spec.rollback_config != UpdateConfig():
        yield Problem(
            "update and rollback settings do not go with a job", "A changed job is run again: leave them out."
        )


def _schedule_problems(spec: ServiceSpec) -> Iterator[Problem]:
    schedule = spec.schedule
    if schedule is None:
        return
    if not spec.mode.is_job:
        yield Problem("only jobs run by a schedule", "Set the mode to replicated-job or global-job.")
    try:
        check_schedule(schedule)
    except InvalidArgument as error:
        yield Problem(error.message, error.remedy)
    yield from _unset("concurrency of runs", schedule.concurrency)
    yield from negative("missed run window", schedule.missed_run_window_seconds)
    yield from negative("number of completed runs to keep", schedule.keep_completed)
    yield from negative("number of failed runs to keep", schedule.keep_failed)


def _update_problems(what: str, config: UpdateConfig) -> Iterator[Problem]:
    yield from _unset(f"{what} failure action", config.failure_action)
    yield from _unset(f"{what} order", config.order)
    yield from negative(f"{what} parallelism", config.parallelism)
    yield from negative(f"{what} delay", config.delay_seconds)
    yield from negative(f"{what} monitor", config.monitor_seconds)
    yield from negative(f"{what} progress deadline", config.progress_deadline_seconds)
    yield from canary_problems(what, config.canary)
    if not 0 <= config.max_failure_ratio <= 1:
        yield Problem(
            f"the {what} failure ratio is {config.max_failure_ratio:g}", "A ratio lies between 0 and 1, both included."
        )


def _endpoint_problems(endpoint: EndpointSpec) -> Iterator[Problem]:
    if endpoint.mode not in ("vip", "dnsrr"):
        yield Problem(f"endpoint mode {endpoint.mode!r} is unknown", "Endpoint modes are vip and dnsrr.")
    taken: set[tuple[str, int]] = set()
    for port in endpoint.ports:
        told = f"{port.published_port}:{port.target_port}/{port.protocol}"
        if port.protocol not in ("tcp", "udp", "sctp"):
            yield Problem(f"port {told}: unknown protocol {port.protocol!r}", "Protocols are tcp, udp and sctp.")
        if not 1 <= port.target_port <= 65535:
            yield Problem(f"port {told}: the target port is out of range", "Target ports are 1 to 65535.")
        if not 0 <= port.published_port <= 65535:
            yield Problem(f"port {told}: the published port is out of range", "Published ports are 1 to 65535.")
        yield from _unset(f"port {told}: publish mode", port.publish_mode)
        if endpoint.mode == "dnsrr" and port.publish_mode is PublishMode.INGRESS:
            yield Problem(
                f"port {told}: ingress needs a virtual address, which dnsrr does not have",
                "Publish with mode host, or use endpoint mode vip.",
            )
        key = (port.protocol, port.published_port)
        if port.published_port and key in taken:
            yield Problem(
                f"port {port.published_port}/{port.protocol} is published twice", "Publish each port once in a service."
            )
        taken.add(key)


def _node_problems(spec: NodeSpec) -> Iterator[Problem]:
    if spec.name:
        yield from _name_problems("node name", spec.name)
    yield from _label_problems(spec.labels)
    yield from _unset("role", spec.role)
    yield from _unset("availability", spec.availability)
    yield from negative("drain timeout", spec.drain_timeout_seconds)


def _cluster_problems(spec: ClusterSpec) -> Iterator[Problem]:
    if not spec.node_cert_expiry_seconds >= MIN_CERT_EXPIRY_SECONDS:
        yield Problem(f"certificates would expire in {spec.node_cert_expiry_seconds:g} s", "Give at least one hour.")
    yield from negative("certificate expiry", spec.node_cert_expiry_seconds)
    if not spec.heartbeat_period_seconds >= MIN_HEARTBEAT_SECONDS:
        yield Problem(
            f"the heartbeat period is {spec.heartbeat_period_seconds:g} s",
            f"Give at least {MIN_HEARTBEAT_SECONDS:g} seconds.",
        )
    yield from negative("heartbeat period", spec.heartbeat_period_seconds)


def _unset(what: str, value: IntEnum) -> Iterator[Problem]:
    if not value:
        yield Problem(f"the {what} is not set", f"Set the {what}, or leave out the section it is part of.")
