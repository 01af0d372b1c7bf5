"""Options that several commands have, and printing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from pyswarm.manager.cli.view.table import Column, Row, render_list
from pyswarm.proto.errors import InvalidArgument

Command = Callable[..., Any]


def format_option(command: Command) -> Command:
    return click.option(
        "--format", "format_", default="", metavar="json|TEMPLATE", help="Print with a Go template, or as JSON lines"
    )(command)


def quiet_option(command: Command) -> Command:
    return click.option("-q", "--quiet", is_flag=True, help="Print only ids")(command)


def filter_option(command: Command) -> Command:
    return click.option(
        "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Print only what matches"
    )(command)


def no_trunc_option(command: Command) -> Command:
    return click.option("--no-trunc", is_flag=True, help="Do not truncate output")(command)


def event_bounds_options(command: Command) -> Command:
    """`since` and `until`: between which moments events are told."""
    since_help = "Events since a moment (2026-01-02T13:23:37Z) or a length (42m)"
    since = click.option("--since", default="", metavar="TIME", help=since_help)
    until = click.option("--until", default="", metavar="TIME", help="Events until a moment; then it ends")
    return since(until(command))


def echo_list(rows: Sequence[Row], columns: Sequence[Column], *, format_: str, quiet: bool, id_key: str = "ID") -> None:
    """Print a list; nothing at all when it is empty and has no head."""
    text = render_list(rows, columns, format_=format_, quiet=quiet, id_key=id_key)
    if rows or text:
        click.echo(text)


def parse_filters(texts: Sequence[str], known: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return {key: values} of `key=value` filters. Raises InvalidArgument for a key the list does not know."""
    filters: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            raise InvalidArgument(f'invalid filter "{text}"', remedy=f"Filters here: {', '.join(known)}, as KEY=VALUE.")
        filters.setdefault(key, []).append(value)
    return filters


def say(text: str) -> None:
    """Tell on standard error what is going on, so that standard output holds the result alone."""
    click.echo(text, err=True)


def echo_each_failure(failures: Sequence[Exception]) -> None:
    """Raise the only failure as it is; tell all of several and raise the last one."""
    for error in failures[:-1]:
        click.echo(f"Error: {error}", err=True)
    if failures:
        raise failures[-1]
