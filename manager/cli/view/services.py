"""`service ls`, `stack services`, `stack ls` and `service inspect --pretty`."""

from collections import Counter
from collections.abc import Sequence

from pyswarm.manager.cli.records import ServiceRow
from pyswarm.manager.cli.view.facts import Fact, render_facts, rfc3339
from pyswarm.manager.cli.view.human import ago
from pyswarm.manager.cli.view.ports import ports_text
from pyswarm.manager.cli.view.table import Row, column
from pyswarm.manager.cli.view.tasks import SHORT_ID
from pyswarm.proto.codec.cron import next_moment
from pyswarm.proto.codec.generic_resources import as_text
from pyswarm.proto.codec.units import format_bytes, format_duration, format_nano_cpus
from pyswarm.proto.model.objects import JobStatus, Service
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.spec import MoveConfig, PortConfig, ServiceSpec, UpdateConfig
from pyswarm.proto.model.states import PlacementStrategy, UpdateOrder, UpdateState

SERVICE_COLUMNS = (
    column("ID", "ID"),
    column("NAME", "Name"),
    column("MODE", "Mode"),
    column("REPLICAS", "Replicas"),
    column("IMAGE", "Image"),
    column("PORTS", "Ports"),
)
STACK_COLUMNS = (column("NAME", "Name"), column("SERVICES", "Services"))


def service_row(row: ServiceRow, *, no_trunc: bool = False) -> Row:
    service = row.service
    limit = service.spec.task_template.placement.max_replicas
    replicas = f"{row.running}/{row.desired}" + (f" (max {limit} per node)" if limit else "")
    if service.spec.mode.is_job:
        total = row.completed + row.desired if job_total(service.spec) is None else job_total(service.spec)
        replicas += f" ({row.completed}/{total} completed)"
    return {
        "ID": service.id if no_trunc else service.id[:SHORT_ID],
        "Name": service.spec.name,
        "Mode": mode_name(service.spec).replace("-", " "),
        "Replicas": replicas,
        "Image": service.spec.task_template.container_spec.image,
        "Ports": ports_text(ports_of(service)),
    }


def stack_rows(services: Sequence[ServiceRow]) -> list[Row]:
    """Return one row for each stack that any service belongs to."""
    counts = Counter(row.service.stack for row in services if row.service.stack)
    return [{"Name": name, "Services": str(counts[name]), "Orchestrator": "Swarm"} for name in sorted(counts)]


def mode_name(spec: ServiceSpec) -> str:
    return spec.mode.name


def job_total(spec: ServiceSpec) -> int | None:
    """Return how many tasks of a replicated job must complete; None for anything else."""
    return None if spec.mode.replicated_job is None else spec.mode.replicated_job.total_completions


def ports_of(service: Service) -> Sequence[PortConfig]:
    """Return the ports as allocated, or as asked for while none is."""
    return service.ports or service.spec.endpoint_spec.ports


def service_pretty(service: Service, *, now: float) -> str:
    """Return one service for people."""
    spec, template = service.spec, service.spec.task_template
    container, placement = template.container_spec, template.placement
    facts: list[Fact] = [
        ("ID", service.id),
        ("Name", spec.name),
        ("Labels", dict(sorted(spec.labels.items()))),
        ("Service Mode", mode_name(spec).title()),
        ("Replicas", str(spec.mode.replicated.replicas) if spec.mode.replicated is not None else ""),
        ("Max Concurrent", str(spec.mode.replicated_job.max_concurrent) if spec.mode.replicated_job else ""),
        ("Total Completions", str(job_total(spec) or "")),
        ("JobStatus", _job_status(service, now)),
        ("Schedule", _schedule(service, now)),
        ("Earlier Runs", [_run(run, now) for run in service.runs]),
        ("UpdateStatus", _update_status(service, now)),
        (
            "Placement",
            {
                "Constraints": ", ".join(placement.constraints),
                "Preferences": ", ".join(f"spread={p}" for p in placement.preferences),
                "Max Replicas Per Node": str(placement.max_replicas or ""),
                "Affinities": ", ".join(placement.affinities),
                "Strategy": "binpack" if placement.strategy is PlacementStrategy.BINPACK else "",
                "Priority": str(placement.priority or ""),
            },
        ),
        ("UpdateConfig", {} if spec.mode.is_job else _update_config(spec.update_config)),
        ("RollbackConfig", {} if spec.mode.is_job else _update_config(spec.rollback_config)),
        (
            "MoveConfig",
            {
                "Parallelism": str(spec.move_config.parallelism or ""),
                "Order": move_order(spec.move_config),
                "Rebalance": "auto" if spec.move_config.rebalances else "",
            },
        ),
        (
            "ContainerSpec",
            {
                "Image": container.image,
                "Entrypoint": " ".join(container.command),
                "Args": " ".join(container.args),
                "Env": " ".join(container.env),
                "Dir": container.dir,
                "User": container.user,
                "Hostname": container.hostname,
                "Read Only": "true" if container.read_only else "",
                "Init": "true" if container.init else "",
                "Capabilities": " ".join(
                    [f"+{c}" for c in container.capability_add] + [f"-{c}" for c in container.capability_drop]
                ),
            },
        ),
        ("Secrets", [f"{s.path}  {s.secret_name}" for s in container.secrets]),
        ("Configs", [f"{c.path}  {c.config_name}" for c in container.configs]),
        ("Mounts", [_mount(m.target, m.source, m.type.name.lower(), m.read_only) for m in container.mounts]),
        (
            "Resources",
            {
                "Reservations": _resources(template.resources.reservations),
                "Limits": _resources(template.resources.limits),
            },
        ),
        (
            "Log Driver",
            {
                "Name": template.log_driver.name,
                "LogOpts": " ".join(f"{key}={value}" for key, value in sorted(template.log_driver.options.items())),
            },
        ),
        (
            "Ports",
            [
                f"{p.published_port or '(any)'}:{p.target_port}/{p.protocol} {p.publish_mode.name.lower()}"
                for p in ports_of(service)
            ],
        ),
    ]
    return render_facts(facts)


def _job_status(service: Service, now: float) -> dict[str, str]:
    status = service.job_status
    if not service.spec.mode.is_job:
        return {}
    return {
        "Run": str(status.iteration),
        "State": status.state.name.lower(),
        "Started": ago(status.started_at, now) if status.started_at else "",
        "Ended": ago(status.ended_at, now) if status.ended_at else "",
        "Message": status.message,
    }


def _schedule(service: Service, now: float) -> dict[str, str]:
    schedule, status = service.spec.schedule, service.cron
    if schedule is None:
        return {}
    return {
        "Cron": schedule.expression,
        "Time Zone": schedule.time_zone,
        "Concurrency": schedule.concurrency.name.lower(),
        "Missed Run Window": format_duration(schedule.missed_run_window_seconds),
        "Suspended": "yes" if schedule.suspended else "",
        "Next Run": "" if schedule.suspended else rfc3339(next_moment(schedule, now)),
        "Last Moment": f"{rfc3339(status.last_at)} {status.message}".rstrip() if status.last_at else "",
    }


def _run(run: JobStatus, now: float) -> str:
    ended = f", ended {ago(run.ended_at, now)}" if run.ended_at else ""
    return f"{run.iteration}  {run.state.name.lower()}{ended}{': ' + run.message if run.message else ''}"


def _update_status(service: Service, now: float) -> dict[str, str]:
    status = service.update_status
    if status.state is UpdateState.UNSET:
        return {}
    return {
        "State": status.state.name.lower(),
        "Started": ago(status.started_at, now) if status.started_at else "",
        "Completed": ago(status.completed_at, now) if status.completed_at else "",
        "Message": status.message,
    }


def move_order(config: MoveConfig) -> str:
    return "" if config.order is UpdateOrder.UNSET else config.order.name.lower().replace("_", "-")


def _update_config(config: UpdateConfig) -> dict[str, str]:
    return {
        "Parallelism": str(config.parallelism),
        "Delay": format_duration(config.delay_seconds) if config.delay_seconds else "",
        "On failure": config.failure_action.name.lower(),
        "Monitoring Period": format_duration(config.monitor_seconds),
        "Max failure ratio": f"{config.max_failure_ratio:g}",
        "Update order": config.order.name.lower().replace("_", "-"),
    }


def _resources(resources: Resources) -> str:
    parts = [
        f"{format_nano_cpus(resources.nano_cpus)} CPUs" if resources.nano_cpus else "",
        f"{format_bytes(resources.memory_bytes)} memory" if resources.memory_bytes else "",
        f"{resources.pids} processes" if resources.pids else "",
        *map(as_text, resources.generic),
    ]
    return ", ".join(part for part in parts if part)


def _mount(target: str, source: str, kind: str, read_only: bool) -> str:
    return f"{target} from {kind}{f' {source}' if source else ''}{' (read-only)' if read_only else ''}"
