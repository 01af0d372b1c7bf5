"""Find objects by what people type: an id, a name, a hostname or a unique id prefix (pure)."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import InvalidArgument, NotFound
from pyswarm.proto.model.objects import Config, Node, Secret, Service

T = TypeVar("T", Service, Node, Secret, Config)


def one_service(seen: Snapshot, wanted: str) -> Service:
    """Return the service with this id, name or unique id prefix. Raises NotFound, InvalidArgument when ambiguous."""
    found = seen.service(wanted) or seen.service_by_name(wanted)
    if found is not None:
        return found
    return _only([s for s in seen.services() if wanted and s.id.startswith(wanted)], "service", wanted)


def find_services(seen: Snapshot, wanted: Sequence[str]) -> list[Service]:
    """Return the services named by `wanted`, in that order; all of them, sorted by name, when it is empty."""
    if not wanted:
        return sorted(seen.services(), key=lambda s: (s.spec.name.casefold(), s.id))
    return [one_service(seen, name) for name in wanted]


def in_stack(services: Iterable[Service], stack: str) -> list[Service]:
    return [s for s in services if not stack or s.stack == stack]


def one_node(seen: Snapshot, wanted: str) -> Node:
    """Return the node with this id, hostname or unique id prefix. Raises NotFound, InvalidArgument when ambiguous."""
    found = seen.node(wanted)
    if found is not None:
        return found
    by_name = [n for n in seen.nodes() if wanted and wanted in (n.description.hostname, n.spec.name)]
    if by_name:
        return _only(by_name, "node", wanted)
    return _only([n for n in seen.nodes() if wanted and n.id.startswith(wanted)], "node", wanted)


def find_nodes(seen: Snapshot, wanted: Sequence[str]) -> list[Node]:
    """Return the nodes named by `wanted`, in that order; all of them, sorted by hostname, when it is empty."""
    if not wanted:
        return sorted(seen.nodes(), key=lambda n: (n.description.hostname, n.id))
    return [one_node(seen, name) for name in wanted]


def one_secret(seen: Snapshot, wanted: str) -> Secret:
    """Return the secret with this id, name or unique id prefix. Raises NotFound, InvalidArgument when ambiguous."""
    found = seen.secret(wanted) or seen.secret_by_name(wanted)
    return found or _only([s for s in seen.secrets() if wanted and s.id.startswith(wanted)], "secret", wanted)


def find_secrets(seen: Snapshot, wanted: Sequence[str]) -> list[Secret]:
    """Return the secrets named by `wanted`, in that order; all of them, sorted by name, when it is empty."""
    if not wanted:
        return sorted(seen.secrets(), key=lambda s: (s.spec.name.casefold(), s.id))
    return [one_secret(seen, name) for name in wanted]


def one_config(seen: Snapshot, wanted: str) -> Config:
    """Return the config with this id, name or unique id prefix. Raises NotFound, InvalidArgument when ambiguous."""
    found = seen.config(wanted) or seen.config_by_name(wanted)
    return found or _only([c for c in seen.configs() if wanted and c.id.startswith(wanted)], "config", wanted)


def find_configs(seen: Snapshot, wanted: Sequence[str]) -> list[Config]:
    """Return the configs named by `wanted`, in that order; all of them, sorted by name, when it is empty."""
    if not wanted:
        return sorted(seen.configs(), key=lambda c: (c.spec.name.casefold(), c.id))
    return [one_config(seen, name) for name in wanted]


def _only(found: Sequence[T], kind: str, wanted: str) -> T:
    if not found:
        raise NotFound(f"no such {kind}: {wanted}", remedy=f"`pyswarm {kind} ls` lists what there is.")
    if len(found) > 1:
        ids = ", ".join(o.id for o in found[:5])
        raise InvalidArgument(f"{wanted} names {len(found)} {kind}s: {ids}", remedy="Give the whole id.")
    return found[0]
