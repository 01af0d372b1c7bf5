"""Docker's options that we do not carry out: refused with what to do instead, or let pass with a warning.

A service must be what was asked for, so what would change it is refused; what makes no difference here is let pass.
"""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_REFUSED = {
    "--credential-spec": "It is for Windows containers only: leave it out.",
    "--isolation": "It is for Windows containers only: leave it out.",
    "--memory-swap": "Containers do not swap: use --limit-memory.",
    "--memory-swappiness": "Containers do not swap: use --limit-memory.",
    "--network": "Tasks are on the node's own network: publish ports.",
    "--network-add": "Tasks are on the node's own network: publish ports.",
    "--network-rm": "Tasks are on the node's own network: publish ports.",
}
_WITHOUT_EFFECT = {
    "--no-resolve-image": "tags are resolved by the node that pulls",
    "--with-registry-auth": "nodes pull with credentials of their own",
}


def _refuse(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        name = option.opts[0]
        raise click.NoSuchOption(name, f"{name} is not supported. {_REFUSED[name]}", ctx=context)


def _warn(_: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        name = option.opts[0]
        click.echo(f"warning: {name} has no effect: {_WITHOUT_EFFECT[name]}", err=True)


UNSUPPORTED_OPTIONS: tuple[Decorator, ...] = (
    *(click.option(n, multiple=True, hidden=True, expose_value=False, callback=_refuse) for n in _REFUSED),
    *(click.option(n, is_flag=True, hidden=True, expose_value=False, callback=_warn) for n in _WITHOUT_EFFECT),
)
