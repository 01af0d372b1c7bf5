"""Flags → ServiceSpec: a new one for `service create`, a changed one for `service update` (pure).

`flags` maps an option's name (`limit_memory`) to its value; None or an empty tuple was not given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from pyswarm.manager.cli.flags.health import with_health
from pyswarm.manager.cli.flags.log_driver import with_log_driver
from pyswarm.manager.cli.flags.merge import merged
from pyswarm.manager.cli.flags.surroundings import with_surroundings
from pyswarm.manager.cli.flags.values import (
    parse_config,
    parse_env,
    parse_labels,
    parse_mount,
    parse_preference,
    parse_publish,
    parse_secret,
)
from pyswarm.manager.cli.flags.words import words_of
from pyswarm.proto.codec.generic_resources import parse_reservation
from pyswarm.proto.codec.ports import parse_short_port
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.resources import ResourceRequirements, Resources
from pyswarm.proto.model.spec import (
    ContainerSpec,
    CronSchedule,
    EndpointSpec,
    GlobalJob,
    GlobalMode,
    MoveConfig,
    Placement,
    PortConfig,
    ReplicatedJob,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

Flags = Mapping[str, Any]
T = TypeVar("T")
S = TypeVar(
    "S", ContainerSpec, Resources, RestartPolicy, Placement, UpdateConfig, EndpointSpec, MoveConfig, CronSchedule
)


def new_spec(
    *, name: str, image: str, args: Sequence[str], flags: Flags, environment: Mapping[str, str]
) -> ServiceSpec:
    """Return the spec of a new service. Raises InvalidArgument."""
    container = ContainerSpec(
        image=image,
        args=tuple(args),
        env=parse_env(flags.get("env", ()), environment),
        labels=parse_labels(flags.get("container_label", ())),
        mounts=tuple(parse_mount(text) for text in flags.get("mount", ())),
        capability_add=tuple(flags.get("cap_add", ())),
        capability_drop=tuple(flags.get("cap_drop", ())),
        secrets=tuple(parse_secret(text) for text in flags.get("secret", ())),
        configs=tuple(parse_config(text) for text in flags.get("config", ())),
    )
    placement = Placement(
        constraints=tuple(flags.get("constraint", ())),
        preferences=tuple(parse_preference(text) for text in flags.get("placement_pref", ())),
        affinities=tuple(flags.get("affinity", ())),
    )
    generic = tuple(parse_reservation(text) for text in flags.get("generic_resource", ()))
    resources = ResourceRequirements(reservations=Resources(generic=generic))
    ports = tuple(port for text in flags.get("publish", ()) for port in parse_publish(text))
    spec = ServiceSpec(
        name=name,
        labels=parse_labels(flags.get("label", ())),
        task_template=TaskSpec(container_spec=container, resources=resources, placement=placement),
        mode=_new_mode(flags),
        endpoint_spec=EndpointSpec(ports=ports),
    )
    return _with_values(spec, flags)


def changed_spec(spec: ServiceSpec, flags: Flags, environment: Mapping[str, str]) -> ServiceSpec:
    """Return `spec` with what the flags of `service update` name. Raises InvalidArgument."""
    template, container = spec.task_template, spec.task_template.container_spec
    image, args = flags.get("image"), flags.get("args")
    container = replace(
        container,
        image=container.image if image is None else image,
        args=container.args if args is None else words_of("--args", args),
        env=_changed_env(container.env, flags, environment),
        labels=_changed_labels(container.labels, flags, "container_label"),
        mounts=merged(
            container.mounts,
            [parse_mount(text) for text in flags.get("mount_add", ())],
            flags.get("mount_rm", ()),
            lambda mount: mount.target,
        ),
        capability_add=_capabilities(container.capability_add, flags, "cap_add", "cap_drop"),
        capability_drop=_capabilities(container.capability_drop, flags, "cap_drop", "cap_add"),
        secrets=merged(
            container.secrets,
            [parse_secret(text) for text in flags.get("secret_add", ())],
            flags.get("secret_rm", ()),
            lambda secret: secret.secret_name,
        ),
        configs=merged(
            container.configs,
            [parse_config(text) for text in flags.get("config_add", ())],
            flags.get("config_rm", ()),
            lambda config: config.config_name,
        ),
    )
    placement = replace(
        template.placement,
        constraints=_listed(template.placement.constraints, flags, "constraint"),
        affinities=_listed(template.placement.affinities, flags, "affinity"),
        preferences=merged(
            template.placement.preferences,
            [parse_preference(text) for text in flags.get("placement_pref_add", ())],
            [parse_preference(text) for text in flags.get("placement_pref_rm", ())],
            lambda key: key,
        ),
    )
    reserved = template.resources.reservations
    generic = merged(
        reserved.generic,
        [parse_reservation(text) for text in flags.get("generic_resource_add", ())],
        [text.partition("=")[0] for text in flags.get("generic_resource_rm", ())],
        lambda need: need.kind,
    )
    template = replace(
        template,
        container_spec=container,
        resources=replace(template.resources, reservations=replace(reserved, generic=generic)),
        placement=placement,
        force_update=template.force_update + (1 if flags.get("force") else 0),
    )
    changed = replace(
        spec,
        labels=_changed_labels(spec.labels, flags, "label"),
        task_template=template,
        endpoint_spec=replace(spec.endpoint_spec, ports=_changed_ports(spec.endpoint_spec.ports, flags)),
    )
    return _with_values(changed, flags)


def _new_mode(flags: Flags) -> ServiceMode:
    name, replicas, concurrent = (
        flags.get("mode") or _default_mode(flags),
        flags.get("replicas"),
        flags.get("max_concurrent"),
    )
    if name in ("global", "global-job") and replicas is not None:
        raise InvalidArgument(
            "replicas can only be used with replicated or replicated-job mode", remedy="Leave --replicas out."
        )
    if name != "replicated-job" and concurrent is not None:
        raise InvalidArgument(
            "max-concurrent can only be used with replicated-job mode", remedy="Leave --max-concurrent out."
        )
    if name == "global":
        return ServiceMode(global_mode=GlobalMode())
    if name == "global-job":
        return ServiceMode(global_job=GlobalJob())
    if name == "replicated-job":
        total = 1 if replicas is None else replicas
        return ServiceMode(replicated_job=ReplicatedJob(total if concurrent is None else concurrent, total))
    return ServiceMode(replicated=ReplicatedMode())


def _default_mode(flags: Flags) -> str:
    """What runs by a schedule is a job."""
    return "replicated-job" if flags.get("cron") else "replicated"


def _schedule(schedule: CronSchedule | None, flags: Flags) -> CronSchedule | None:
    """Return the schedule with what the flags name; an empty one ends it."""
    given = {
        "time_zone": flags.get("cron_time_zone"),
        "concurrency": flags.get("cron_concurrency"),
        "missed_run_window_seconds": flags.get("cron_missed_run_window"),
        "keep_completed": flags.get("cron_keep_completed"),
        "keep_failed": flags.get("cron_keep_failed"),
        "suspended": flags.get("cron_suspend"),
    }
    if flags.get("cron") == "":
        return None
    if schedule is None and flags.get("cron") is None:
        if any(value is not None for value in given.values()):
            raise InvalidArgument("there is no schedule to change", remedy='Give one: --cron "30 3 * * *".')
        return None
    return _given(schedule or CronSchedule(), expression=flags.get("cron"), **given)


def _job_size(job: ReplicatedJob, flags: Flags) -> ReplicatedJob:
    """Return a job of another size: as many at once as before, unless the flags say so."""
    total, concurrent = flags.get("replicas"), flags.get("max_concurrent")
    return ReplicatedJob(
        max_concurrent=job.max_concurrent if concurrent is None else concurrent,
        total_completions=job.total_completions if total is None else total,
    )


def scaled(spec: ServiceSpec, replicas: int) -> ServiceSpec:
    """Return `spec` with that many replicas. Raises InvalidArgument for a global service or a job."""
    if spec.mode.replicated is None:
        raise InvalidArgument(
            f"{spec.name}: scale can only be used with replicated mode",
            remedy="A global service runs once on every node, bounded by constraints; a job runs again when updated.",
        )
    return replace(spec, mode=ServiceMode(replicated=ReplicatedMode(replicas=replicas)))


def _with_values(spec: ServiceSpec, flags: Flags) -> ServiceSpec:
    """Apply the flags that simply set one field, which create and update share."""
    if spec.mode.replicated_job is not None:
        spec = replace(spec, mode=ServiceMode(replicated_job=_job_size(spec.mode.replicated_job, flags)))
    elif flags.get("max_concurrent") is not None:
        raise InvalidArgument(
            "max-concurrent can only be used with replicated-job mode", remedy="Leave --max-concurrent out."
        )
    elif flags.get("replicas") is not None:
        spec = scaled(spec, flags["replicas"])
    template = spec.task_template
    entrypoint = flags.get("entrypoint")
    container = _given(
        template.container_spec,
        command=None if entrypoint is None else words_of("--entrypoint", entrypoint),
        dir=flags.get("workdir"),
        user=flags.get("user"),
        hostname=flags.get("hostname"),
        tty=flags.get("tty"),
        init=flags.get("init"),
        read_only=flags.get("read_only"),
        stop_signal=flags.get("stop_signal"),
        oom_score_adj=flags.get("oom_score_adj"),
        stop_grace_period_seconds=flags.get("stop_grace_period"),
    )
    resources = ResourceRequirements(
        limits=_given(
            template.resources.limits,
            nano_cpus=flags.get("limit_cpu"),
            memory_bytes=flags.get("limit_memory"),
            pids=flags.get("limit_pids"),
        ),
        reservations=_given(
            template.resources.reservations,
            nano_cpus=flags.get("reserve_cpu"),
            memory_bytes=flags.get("reserve_memory"),
            pids=flags.get("reserve_pids"),
        ),
    )
    restart = _given(
        template.restart_policy,
        condition=flags.get("restart_condition"),
        delay_seconds=flags.get("restart_delay"),
        max_attempts=flags.get("restart_max_attempts"),
        window_seconds=flags.get("restart_window"),
        max_delay_seconds=flags.get("restart_max_delay"),
    )
    return replace(
        spec,
        task_template=replace(
            template,
            container_spec=with_surroundings(with_health(container, flags), flags),
            resources=resources,
            log_driver=with_log_driver(template.log_driver, flags),
            restart_policy=restart,
            placement=_given(
                template.placement,
                max_replicas=flags.get("replicas_max_per_node"),
                strategy=flags.get("strategy"),
                priority=flags.get("priority"),
            ),
        ),
        update_config=_update_config(spec.update_config, flags, "update"),
        rollback_config=_update_config(spec.rollback_config, flags, "rollback"),
        endpoint_spec=_given(spec.endpoint_spec, mode=flags.get("endpoint_mode")),
        schedule=_schedule(spec.schedule, flags),
        move_config=_given(
            spec.move_config,
            parallelism=flags.get("move_parallelism"),
            order=flags.get("move_order"),
            rebalances=flags.get("rebalance"),
        ),
    )


def _update_config(config: UpdateConfig, flags: Flags, prefix: str) -> UpdateConfig:
    return _given(
        config,
        parallelism=flags.get(f"{prefix}_parallelism"),
        delay_seconds=flags.get(f"{prefix}_delay"),
        failure_action=flags.get(f"{prefix}_failure_action"),
        monitor_seconds=flags.get(f"{prefix}_monitor"),
        max_failure_ratio=flags.get(f"{prefix}_max_failure_ratio"),
        order=flags.get(f"{prefix}_order"),
        progress_deadline_seconds=flags.get(f"{prefix}_progress_deadline"),
        canary=flags.get(f"{prefix}_canary"),
    )


def _given(record: S, **values: Any) -> S:
    return replace(record, **{name: value for name, value in values.items() if value is not None})


def _changed_labels(labels: Mapping[str, str], flags: Flags, what: str) -> dict[str, str]:
    removed = set(flags.get(f"{what}_rm", ()))
    return {
        **{name: value for name, value in labels.items() if name not in removed},
        **parse_labels(flags.get(f"{what}_add", ())),
    }


def _changed_env(env: Sequence[str], flags: Flags, environment: Mapping[str, str]) -> tuple[str, ...]:
    added = parse_env(flags.get("env_add", ()), environment)
    return merged(env, added, flags.get("env_rm", ()), lambda entry: entry.partition("=")[0])


def _changed_ports(ports: Sequence[PortConfig], flags: Flags) -> tuple[PortConfig, ...]:
    """Remove by target port and protocol; an added port replaces what was published at the same place."""
    removed = [port for text in flags.get("publish_rm", ()) for port in parse_short_port(text)]
    gone = [(port.target_port, port.protocol) for port in removed]
    kept = merged(ports, (), gone, lambda port: (port.target_port, port.protocol))
    added = [port for text in flags.get("publish_add", ()) for port in parse_publish(text)]
    return merged(kept, added, (), lambda port: (port.published_port or -port.target_port, port.protocol))


def _listed(values: Sequence[str], flags: Flags, what: str) -> tuple[str, ...]:
    return merged(values, flags.get(f"{what}_add", ()), flags.get(f"{what}_rm", ()), lambda text: text)


def _capabilities(values: Sequence[str], flags: Flags, add: str, opposite: str) -> tuple[str, ...]:
    """Adding a capability takes it off the opposite list."""
    taken = {_capability(text) for text in flags.get(opposite, ())}
    kept = [text for text in values if _capability(text) not in taken]
    known = {_capability(text) for text in kept}
    return (*kept, *(text for text in flags.get(add, ()) if _capability(text) not in known))


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")
