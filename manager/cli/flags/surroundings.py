"""The options about what a container sees around it: groups, name servers, other hosts, kernel settings, limits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from msgspec.structs import replace

from pyswarm.manager.cli.flags.merge import merged
from pyswarm.proto.codec.validate_surroundings import parse_sysctls, parse_ulimit
from pyswarm.proto.model.spec import ContainerSpec

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_WHAT = (
    ("dns", "ADDRESS", "name server", "ADDRESS"),
    ("dns-option", "OPTION", "option of the resolver", "OPTION"),
    ("dns-search", "DOMAIN", "search domain", "DOMAIN"),
    ("group", "GROUP", "group of the user besides its own", "GROUP"),
    ("host", "NAME:ADDRESS", "host that is known by name", "NAME[:ADDRESS]"),
    ("sysctl", "NAME=VALUE", "kernel setting of the container's own", "NAME"),
    ("ulimit", "NAME=SOFT[:HARD]", "limit of each process", "NAME"),
)


def _many(name: str, metavar: str, text: str) -> Decorator:
    return click.option(f"--{name}", multiple=True, metavar=metavar, help=text)


CREATE_SURROUNDINGS: tuple[Decorator, ...] = tuple(_many(n, form, f"Set a {what}") for n, form, what, _ in _WHAT)
UPDATE_SURROUNDINGS: tuple[Decorator, ...] = (
    *(_many(f"{n}-add", form, f"Add or change a {what}") for n, form, what, _ in _WHAT),
    *(_many(f"{n}-rm", key, f"Remove a {what}") for n, _, what, key in _WHAT),
)


def with_surroundings(container: ContainerSpec, flags: Mapping[str, Any]) -> ContainerSpec:
    """Return the container with what the flags of create (`dns`) or update (`dns_add`, `dns_rm`) say."""

    def added(what: str) -> Sequence[str]:
        return (*flags.get(what, ()), *flags.get(f"{what}_add", ()))

    def removed(what: str) -> Sequence[str]:
        return tuple(flags.get(f"{what}_rm", ()))

    gone = {text.partition("=")[0] for text in removed("sysctl")}
    return replace(
        container,
        dns_servers=merged(container.dns_servers, added("dns"), removed("dns"), str),
        dns_search=merged(container.dns_search, added("dns_search"), removed("dns_search"), str),
        dns_options=merged(container.dns_options, added("dns_option"), removed("dns_option"), str),
        groups=merged(container.groups, added("group"), removed("group"), str),
        extra_hosts=_changed_hosts(container.extra_hosts, added("host"), removed("host")),
        sysctls={
            **{key: value for key, value in container.sysctls.items() if key not in gone},
            **parse_sysctls(added("sysctl")),
        },
        ulimits=merged(
            container.ulimits,
            [parse_ulimit(text) for text in added("ulimit")],
            [text.partition("=")[0] for text in removed("ulimit")],
            lambda limit: limit.name,
        ),
    )


def _changed_hosts(hosts: Sequence[str], added: Sequence[str], removed: Sequence[str]) -> tuple[str, ...]:
    """A host may have several addresses: a name alone removes them all."""
    names = {text for text in removed if ":" not in text}
    kept = [host for host in hosts if host not in removed and host.partition(":")[0] not in names]
    return (*kept, *(host for host in dict.fromkeys(added) if host not in kept))
