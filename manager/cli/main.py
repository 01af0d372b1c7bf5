"""The `pyswarm` command: its words, its global options, and where errors become text and an exit status."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pyswarm.manager.cli.failure import EXIT_INTERRUPTED, explain
from pyswarm.manager.cli.lazy_group import Lazy, LazyGroup
from pyswarm.manager.cli.settings import Settings
from pyswarm.proto.errors import SwarmError
from pyswarm.proto.paths import NodePaths

_COMMANDS = "pyswarm.manager.cli.commands"

_CLUSTER: Mapping[str, Lazy] = {
    "init": Lazy(f"{_COMMANDS}.init:init", "Make this node the first manager of a new cluster"),
    "join": Lazy(f"{_COMMANDS}.join:join", "Join a cluster as a worker or a manager"),
    "join-token": Lazy(f"{_COMMANDS}.join_token:join_token", "Show or rotate a join token"),
    "update": Lazy(f"{_COMMANDS}.update:update", "Change the cluster's settings"),
    "unlock": Lazy(f"{_COMMANDS}.unlock:unlock", "Give this node's locked manager the unlock key"),
    "unlock-key": Lazy(f"{_COMMANDS}.unlock:unlock_key", "Show or rotate the unlock key"),
    "backup": Lazy(f"{_COMMANDS}.backup:backup", "Write the cluster's state to a sealed file"),
    "restore": Lazy(f"{_COMMANDS}.backup:restore", "Make a cluster out of a backup"),
    "leave": Lazy(f"{_COMMANDS}.leave:leave", "Leave the cluster"),
}

_ALL: Mapping[str, Lazy] = {
    **_CLUSTER,
    "node": Lazy(f"{_COMMANDS}.node:node", "Manage the cluster's nodes"),
    "service": Lazy(f"{_COMMANDS}.service:service", "Manage services"),
    "stack": Lazy(f"{_COMMANDS}.stack:stack", "Manage stacks: services described in a Compose file"),
    "secret": Lazy(f"{_COMMANDS}.payload:secret", "Manage secrets: what tasks must know and nobody else"),
    "config": Lazy(f"{_COMMANDS}.payload:config", "Manage configs: files for tasks"),
    "container": Lazy(f"{_COMMANDS}.container:container", "Manage the containers on this node"),
    "image": Lazy(f"{_COMMANDS}.image:image", "Manage the images on this node"),
    "events": Lazy(f"{_COMMANDS}.events:events", "Tell what happens in the cluster"),
    "why": Lazy(f"{_COMMANDS}.why:why", "Say why a task, a service or a node is as it is"),
    "raft": Lazy(f"{_COMMANDS}.raft:raft", "See how the managers' consensus fares"),
    "info": Lazy(f"{_COMMANDS}.info:info", "Show this node, its daemons and its cluster"),
    "version": Lazy(f"{_COMMANDS}.version:version", "Show the versions of client and manager"),
    "lab": Lazy("pyswarm.deploy.lab.cli:lab", "Run a whole cluster on this machine, to try and to test"),
    "swarm": Lazy("pyswarm.manager.cli.main:swarm", "The same as init, join, join-token and leave", is_hidden=True),
}


class _Root(LazyGroup):
    """Turns every error into text on standard error and an exit status."""

    def main(self, args: Sequence[str] | None = None, **options: Any) -> Any:  # type: ignore[override]
        options.pop("standalone_mode", None)
        try:
            status = super().main(args, standalone_mode=False, **options)
        except (click.Abort, KeyboardInterrupt):
            click.echo(err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has had enough; nothing is left to tell them.
            sys.stderr.close()
            sys.exit(1)
        except (click.ClickException, SwarmError, OSError) as error:
            text, failed = explain(error)
            click.echo(text, err=True)
            sys.exit(failed)
        sys.exit(status if isinstance(status, int) else 0)


@click.group(
    "pyswarm",
    cls=_Root,
    lazy=_ALL,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="A cluster orchestrator with Swarm's verbs. `pyswarm COMMAND --help` tells more.",
)
@click.option("--root", envvar="PYSWARM_ROOT", default="/", metavar="DIR", help="Where this node keeps its files (/).")
@click.option(
    "-H",
    "--host",
    envvar="PYSWARM_HOST",
    default="",
    metavar="HOST[:PORT]",
    help="Talk to the manager at this address.",
)
@click.pass_context
def cli(ctx: click.Context, root: str, host: str) -> None:
    ctx.obj = Settings(NodePaths(Path(root).absolute()), host)


@click.group(cls=LazyGroup, lazy=_CLUSTER, help="The same as the commands of these names without `swarm`.")
def swarm() -> None:
    pass


def main() -> None:
    cli(prog_name="pyswarm")
