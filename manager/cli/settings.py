"""Options that go before the command, handed to every command."""

from dataclasses import dataclass

import click

from pyswarm.proto.paths import NodePaths


@dataclass(frozen=True)
class Settings:
    """`host` is the address of a manager to talk to, or "" for the one on this node."""

    paths: NodePaths
    host: str = ""


pass_settings = click.make_pass_decorator(Settings)
