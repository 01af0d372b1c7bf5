"""A command group that imports a command only when it is run, so that the command line starts quickly."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

import click


class Lazy(NamedTuple):
    """Where a command lives (`package.module:attribute`), and the line `--help` shows for it."""

    target: str
    help: str
    is_hidden: bool = False


class LazyGroup(click.Group):
    def __init__(self, *arguments: Any, lazy: Mapping[str, Lazy], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [*self.commands, *self._lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._lazy:
            module, _, attribute = self._lazy[cmd_name].target.partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(_unknown(ctx.command_path, args[0], known), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        rows = [(name, lazy.help) for name, lazy in self._lazy.items() if not lazy.is_hidden]
        rows += [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _unknown(path: str, word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    remedy = f"Did you mean `{path} {near[0]}`?" if near else f"`{path} --help` lists what there is."
    return f"`{path}` has no command {word}\n{remedy}"
