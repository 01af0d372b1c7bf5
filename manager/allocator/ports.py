"""Give services their published ports, and refuse those that are taken (pure).

A port that is published in ingress mode belongs to one service in the whole cluster. In host mode it belongs to one
task per node, which the scheduler sees to; only an ingress port of the same number stands against it.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists, ResourceExhausted
from pyswarm.proto.model.objects import Service
from pyswarm.proto.model.spec import PortConfig, ServiceSpec
from pyswarm.proto.model.states import PublishMode

DYNAMIC_PORTS = range(30000, 32768)
"""Where published ports that were not chosen come from (SwarmKit portallocator.go)."""


def check_ports(seen: Snapshot, spec: ServiceSpec, service_id: str) -> None:
    """Raise AlreadyExists naming the service that holds a port which `spec` wants."""
    for port in spec.endpoint_spec.ports:
        for service, taken in _taken(seen, service_id):
            if not _same_port(port, taken):
                continue
            if PublishMode.INGRESS in (port.publish_mode, taken.publish_mode):
                raise AlreadyExists(
                    f"port {port.published_port}/{port.protocol} is already published by service {service.spec.name}",
                    remedy="Publish another port, or remove it from that service.",
                )


def allocate_ports(seen: Snapshot, spec: ServiceSpec, service: Service | None) -> tuple[PortConfig, ...]:
    """Return the spec's ports with every published port filled in; a service keeps those it was given before."""
    if not spec.endpoint_spec.ports:
        # Most services publish none: nothing to walk over all the others for.
        return ()
    check_ports(seen, spec, service.id if service is not None else "")
    own = {(p.target_port, p.protocol): p.published_port for p in (service.ports if service is not None else ())}
    used = {(taken.published_port, taken.protocol) for _, taken in _taken(seen, "")}
    used |= {(p.published_port, p.protocol) for p in spec.endpoint_spec.ports if p.published_port}
    ports = []
    for port in spec.endpoint_spec.ports:
        if not port.published_port and port.publish_mode is PublishMode.INGRESS:
            kept = own.get((port.target_port, port.protocol))
            chosen = kept or next((n for n in DYNAMIC_PORTS if (n, port.protocol) not in used), None)
            if chosen is None:
                raise ResourceExhausted(
                    f"all ports from {DYNAMIC_PORTS.start} to {DYNAMIC_PORTS.stop - 1} are published",
                    remedy="Name the published port, outside that range.",
                )
            used.add((chosen, port.protocol))
            port = replace(port, published_port=chosen)
        ports.append(port)
    return tuple(ports)


def _taken(seen: Snapshot, but_for: str) -> Iterator[tuple[Service, PortConfig]]:
    for service in seen.services():
        if service.id != but_for:
            for port in service.ports:
                if port.published_port:
                    yield service, port


def _same_port(one: PortConfig, other: PortConfig) -> bool:
    return one.published_port == other.published_port and one.protocol == other.protocol
