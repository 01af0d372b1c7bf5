"""From a task to the container that runs it (pure)."""

from collections.abc import Sequence

from msgspec.structs import replace

from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.codec.placeholders import filled_in
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.resources import GenericResource
from pyswarm.proto.model.spec import ContainerSpec, Mount
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2
from pyswarm.worker.agent.journal import Accepted


def container_config(
    accepted: Accepted, *, node_id: str, node: NodeDescription, namespace: str, files: Sequence[Mount] = ()
) -> pb.ContainerConfig:
    """Return the runtime's configuration for a task that joins the network namespace at `namespace`.

    `files` are mounted besides what the spec asks for: its secrets and configs.
    """
    spec, task = with_values(accepted, node_id, node), accepted.task
    limits = accepted.spec.resources.limits
    labels = {
        **spec.labels,
        "pyswarm.task": task.id,
        "pyswarm.task.name": task_name(accepted),
        "pyswarm.service": task.service_id,
        "pyswarm.service.name": accepted.service_name,
        "pyswarm.node": node_id,
    }
    return pb.ContainerConfig(
        image=spec.image,
        entrypoint=spec.command,
        args=spec.args,
        env=(*spec.env, *_resource_variables(task.assigned_generic)),
        dir=spec.dir,
        user=spec.user,
        hostname=spec.hostname or task.id[:12],
        labels=labels,
        mounts=[to_message(mount, types_pb2.Mount) for mount in (*spec.mounts, *files)],
        capability_add=spec.capability_add,
        capability_drop=spec.capability_drop,
        read_only=spec.read_only,
        init=spec.init,
        limits=to_message(limits, types_pb2.Resources),
        network_namespace=namespace,
        stop_signal=spec.stop_signal,
        stop_grace_period_seconds=spec.stop_grace_period_seconds,
        dns_servers=spec.dns_servers,
        dns_search=spec.dns_search,
        dns_options=spec.dns_options,
        extra_hosts=spec.extra_hosts,
        sysctls=spec.sysctls,
        ulimits=[to_message(limit, types_pb2.Ulimit) for limit in spec.ulimits],
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        groups=spec.groups,
        oom_score_adj=spec.oom_score_adj,
        log_driver=to_message(accepted.spec.log_driver, types_pb2.LogDriver),
    )


def _resource_variables(pieces: Sequence[GenericResource]) -> tuple[str, ...]:
    """Return which generic resources the task got, as Docker tells it: DOCKER_RESOURCE_GPU=GPU-7a1c,GPU-99e0."""
    by_kind: dict[str, list[str]] = {}
    for piece in pieces:
        by_kind.setdefault(piece.kind, []).append(piece.name or str(piece.count))
    return tuple(f"DOCKER_RESOURCE_{kind.upper()}={','.join(names)}" for kind, names in sorted(by_kind.items()))


def with_values(accepted: Accepted, node_id: str, node: NodeDescription) -> ContainerSpec:
    """Return the task's container spec with its placeholders filled in."""
    spec, task = accepted.spec.container_spec, accepted.task
    values = {
        ".Service.ID": task.service_id,
        ".Service.Name": accepted.service_name,
        ".Node.ID": node_id,
        ".Node.Hostname": node.hostname,
        ".Node.Platform.OS": node.platform.os,
        ".Node.Platform.Architecture": node.platform.architecture,
        ".Task.ID": task.id,
        ".Task.Name": task_name(accepted),
        ".Task.Slot": str(task.slot),
    }
    return replace(
        spec,
        env=tuple(filled_in(variable, values) for variable in spec.env),
        hostname=filled_in(spec.hostname, values),
        mounts=tuple(
            replace(mount, source=filled_in(mount.source, values), target=filled_in(mount.target, values))
            for mount in spec.mounts
        ),
    )


def task_name(accepted: Accepted) -> str:
    """Return `service.slot.task`, or with the node instead of the slot for a global service (SwarmKit api/naming)."""
    task = accepted.task
    return f"{accepted.service_name}.{task.slot or task.node_id}.{task.id}"


def published_ports(accepted: Accepted) -> list[tuple[str, int, int]]:
    """Return (protocol, published, target) of each published port."""
    return [(p.protocol, p.published_port, p.target_port) for p in accepted.ports if p.published_port]
