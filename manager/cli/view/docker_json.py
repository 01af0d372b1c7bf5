"""`inspect`: objects as the JSON of Docker's API: its names, nanoseconds, RFC 3339 moments.

Members that are empty are left out, as Docker leaves them out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.manager.cli.view.services import move_order
from pyswarm.proto.model.objects import JobStatus, Node, Service
from pyswarm.proto.model.resources import Resources
from pyswarm.proto.model.spec import (
    DRAIN_TIMEOUT_SECONDS,
    ContainerSpec,
    FileTarget,
    HealthConfig,
    MoveConfig,
    PortConfig,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import PlacementStrategy, UpdateState

Json = dict[str, Any]


def service_json(service: Service) -> Json:
    """Return the service as `GET /services/ID` gives it."""
    found: Json = {
        **_meta(service),
        "Spec": spec_json(service.spec),
        "PreviousSpec": spec_json(service.previous_spec) if service.previous_spec is not None else None,
        "Endpoint": {"Spec": _endpoint(service.spec), "Ports": _ports(service.ports)},
    }
    status = service.update_status
    if status.state is not UpdateState.UNSET:
        found["UpdateStatus"] = _without_empty(
            {
                "State": status.state.name.lower(),
                "StartedAt": rfc3339(status.started_at),
                "CompletedAt": rfc3339(status.completed_at) if status.completed_at else None,
                "Message": status.message,
            }
        )
    job = service.job_status
    if service.spec.mode.is_job:
        found["JobStatus"] = _run(job)
    if service.spec.schedule is not None:
        cron = service.cron
        found["CronStatus"] = _without_empty(
            {"LastMoment": rfc3339(cron.last_at) if cron.last_at else None, "Message": cron.message}
        )
        found["EarlierRuns"] = [_run(run) for run in service.runs]
    return _without_empty(found)


def _run(run: JobStatus) -> Json:
    return _without_empty(
        {
            "JobIteration": {"Index": run.iteration},
            "LastExecution": rfc3339(run.started_at) if run.started_at else None,
            "ScheduledAt": rfc3339(run.scheduled_at) if run.scheduled_at else None,
            "State": run.state.name.lower(),
            "EndedAt": rfc3339(run.ended_at) if run.ended_at else None,
            "Message": run.message,
        }
    )


def spec_json(spec: ServiceSpec) -> Json:
    """Return a service's spec. A mode is written even when it has no members; a job has no update settings."""
    found = {
        "Name": spec.name,
        "Labels": dict(spec.labels),
        "TaskTemplate": _template(spec.task_template),
        "Mode": _mode(spec.mode),
        "UpdateConfig": _update(spec.update_config),
        "RollbackConfig": _update(spec.rollback_config),
        "EndpointSpec": _endpoint(spec),
    }
    if (schedule := spec.schedule) is not None:
        found["Schedule"] = _without_empty(
            {
                "Cron": schedule.expression,
                "TimeZone": schedule.time_zone,
                "Concurrency": schedule.concurrency.name.lower(),
                "MissedRunWindow": _nanoseconds(schedule.missed_run_window_seconds),
                "KeepCompleted": schedule.keep_completed,
                "KeepFailed": schedule.keep_failed,
                "Suspended": schedule.suspended,
            }
        )
    if spec.move_config != MoveConfig():
        found["MoveConfig"] = _without_empty(
            {
                "Parallelism": spec.move_config.parallelism,
                "Order": move_order(spec.move_config),
                "Rebalance": "auto" if spec.move_config.rebalances else "",
            }
        )
    if spec.mode.is_job:
        del found["UpdateConfig"], found["RollbackConfig"]
    return found


def _mode(mode: ServiceMode) -> Json:
    if mode.global_mode is not None:
        return {"Global": {}}
    if mode.global_job is not None:
        return {"GlobalJob": {}}
    if (job := mode.replicated_job) is not None:
        return {"ReplicatedJob": {"MaxConcurrent": job.max_concurrent, "TotalCompletions": job.total_completions}}
    return {"Replicated": {"Replicas": mode.replicated.replicas}} if mode.replicated is not None else {}


def node_json(node: Node) -> Json:
    """Return the node as `GET /nodes/ID` gives it."""
    description = node.description
    found: Json = {
        **_meta(node),
        "Spec": {
            "Name": node.spec.name or None,
            "Labels": dict(node.spec.labels),
            "Role": node.spec.role.name.lower(),
            "Availability": node.spec.availability.name.lower(),
            "DrainTimeout": _nanoseconds(node.spec.drain_timeout_seconds)
            if node.spec.drain_timeout_seconds != DRAIN_TIMEOUT_SECONDS
            else None,
        },
        "Role": node.role.name.lower(),
        "Description": {
            "Hostname": description.hostname,
            "Platform": {
                "Architecture": description.platform.architecture,
                "OS": description.platform.os,
            },
            "Resources": _resources(description.resources),
            "Engine": _without_empty(
                {"EngineVersion": description.engine_version, "Labels": dict(description.engine_labels)}
            ),
        },
        "Status": _without_empty(
            {"State": node.status.state.name.lower(), "Message": node.status.message, "Addr": node.status.addr}
        ),
    }
    found["Spec"] = {key: value for key, value in found["Spec"].items() if value is not None}
    if node.manager_status is not None:
        found["ManagerStatus"] = _without_empty(
            {
                "Leader": node.manager_status.leader or None,
                "Reachability": node.manager_status.reachability.name.lower(),
                "Addr": node.manager_status.addr,
            }
        )
    return found


def _meta(stored: Service | Node) -> Json:
    return {
        "ID": stored.id,
        "Version": {"Index": stored.version},
        "CreatedAt": rfc3339(stored.created_at),
        "UpdatedAt": rfc3339(stored.updated_at),
    }


def _template(template: TaskSpec) -> Json:
    restart, placement = template.restart_policy, template.placement
    return _without_empty(
        {
            "ContainerSpec": _container(template.container_spec),
            "Resources": _without_empty(
                {
                    "Limits": _resources(template.resources.limits),
                    "Reservations": _resources(template.resources.reservations),
                }
            ),
            "RestartPolicy": {
                "Condition": restart.condition.name.lower().replace("_", "-"),
                "Delay": _nanoseconds(restart.delay_seconds),
                "MaxAttempts": restart.max_attempts,
                "Window": _nanoseconds(restart.window_seconds),
                "MaxDelay": _nanoseconds(restart.max_delay_seconds),
            },
            "Placement": _without_empty(
                {
                    "Constraints": list(placement.constraints),
                    "Preferences": [{"Spread": {"SpreadDescriptor": key}} for key in placement.preferences],
                    "MaxReplicas": placement.max_replicas,
                    "Affinities": list(placement.affinities),
                    "Strategy": "binpack" if placement.strategy is PlacementStrategy.BINPACK else "",
                    "Priority": placement.priority,
                }
            ),
            "ForceUpdate": template.force_update,
            "LogDriver": _without_empty(
                {"Name": template.log_driver.name, "Options": dict(template.log_driver.options)}
            ),
            "Runtime": "container",
        }
    )


def _file(file: FileTarget) -> Json:
    told: Json = {"Name": file.name, "UID": file.uid, "GID": file.gid, "Mode": file.mode}
    if file.in_place:
        told |= {"Propagation": "in-place", "Signal": file.signal}
    return told


def _container(container: ContainerSpec) -> Json:
    return _without_empty(
        {
            "Image": container.image,
            "Labels": dict(container.labels),
            "Command": list(container.command),
            "Args": list(container.args),
            "Hostname": container.hostname,
            "Env": list(container.env),
            "Dir": container.dir,
            "User": container.user,
            "TTY": container.tty,
            "OpenStdin": container.open_stdin,
            "Groups": list(container.groups),
            "OomScoreAdj": container.oom_score_adj,
            "Init": container.init,
            "ReadOnly": container.read_only,
            "Mounts": [
                _without_empty(
                    {
                        "Type": mount.type.name.lower(),
                        "Source": mount.source,
                        "Target": mount.target,
                        "ReadOnly": mount.read_only,
                        "TmpfsOptions": _without_empty({"SizeBytes": mount.tmpfs_size_bytes}),
                    }
                )
                for mount in container.mounts
            ],
            "Secrets": [
                {"File": _file(s.file), "SecretID": s.secret_id, "SecretName": s.secret_name} for s in container.secrets
            ],
            "Configs": [
                {"File": _file(c.file), "ConfigID": c.config_id, "ConfigName": c.config_name} for c in container.configs
            ],
            "StopSignal": container.stop_signal,
            "StopGracePeriod": _nanoseconds(container.stop_grace_period_seconds),
            "CapabilityAdd": list(container.capability_add),
            "CapabilityDrop": list(container.capability_drop),
            "DNSConfig": _without_empty(
                {
                    "Nameservers": list(container.dns_servers),
                    "Search": list(container.dns_search),
                    "Options": list(container.dns_options),
                }
            ),
            "Hosts": [" ".join(reversed(host.split(":", 1))) for host in container.extra_hosts],
            "Sysctls": dict(container.sysctls),
            "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in container.ulimits],
            "Healthcheck": _health(container.healthcheck),
            "Readiness": _health(container.readiness),
            "PreStop": list(container.pre_stop),
            "DrainDelay": _nanoseconds(container.drain_delay_seconds),
        }
    )


def _health(config: HealthConfig) -> Json:
    return _without_empty(
        {
            "Test": list(config.test),
            "Interval": _nanoseconds(config.interval_seconds),
            "Timeout": _nanoseconds(config.timeout_seconds),
            "Retries": config.retries,
            "StartPeriod": _nanoseconds(config.start_period_seconds),
            "StartInterval": _nanoseconds(config.start_interval_seconds),
        }
    )


def _update(config: UpdateConfig) -> Json:
    return {
        "Parallelism": config.parallelism,
        "Delay": _nanoseconds(config.delay_seconds),
        "FailureAction": config.failure_action.name.lower(),
        "Monitor": _nanoseconds(config.monitor_seconds),
        "MaxFailureRatio": config.max_failure_ratio,
        "Order": config.order.name.lower().replace("_", "-"),
        "ProgressDeadline": _nanoseconds(config.progress_deadline_seconds),
        **({"Canary": list(config.canary)} if config.canary else {}),
    }


def _endpoint(spec: ServiceSpec) -> Json:
    return _without_empty({"Mode": spec.endpoint_spec.mode, "Ports": _ports(spec.endpoint_spec.ports)})


def _ports(ports: Sequence[PortConfig]) -> list[Json]:
    return [
        _without_empty(
            {
                "Name": port.name,
                "Protocol": port.protocol,
                "TargetPort": port.target_port,
                "PublishedPort": port.published_port,
                "PublishMode": port.publish_mode.name.lower(),
            }
        )
        for port in ports
    ]


def _resources(resources: Resources) -> Json:
    return _without_empty(
        {
            "NanoCPUs": resources.nano_cpus,
            "MemoryBytes": resources.memory_bytes,
            "Pids": resources.pids,
            "GenericResources": [
                {"NamedResourceSpec": {"Kind": piece.kind, "Value": piece.name}}
                if piece.name
                else {"DiscreteResourceSpec": {"Kind": piece.kind, "Value": piece.count}}
                for piece in resources.generic
            ],
        }
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _without_empty(members: Mapping[str, Any]) -> Json:
    return {key: value for key, value in members.items() if value not in (None, "", 0, False, [], {})}
