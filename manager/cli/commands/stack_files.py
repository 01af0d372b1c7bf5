"""Reading stack files and what they bring, and telling what became of a stack: for all commands that take a file."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.records import StackChange
from pyswarm.proto.codec.stack_file import StackData, StackFile, parse_stack
from pyswarm.proto.errors import InvalidStackFile
from pyswarm.proto.model.spec import ConfigSpec, SecretSpec

_PROGRESSIVE = {"created": "Creating", "updated": "Updating", "removed": "Removing"}


def compose_file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    text = "Compose file, `-` for stdin"
    return click.option("-c", "--compose-file", "files", multiple=True, required=True, metavar="FILE", help=text)(
        command
    )


def prune_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--prune", is_flag=True, help="Remove services that the files do not have any more")(command)


def read_stack(files: Sequence[str], name: str) -> StackFile:
    """Return what the files say, and tell their warnings. Raises InvalidStackFile, InvalidArgument, OSError."""
    folder = _folder(files)
    parsed = parse_stack(
        [_text(file) for file in files],
        stack=name,
        environment=os.environ,
        read_text=lambda file: (folder / Path(file).expanduser()).read_text("utf-8-sig"),
    )
    for warning in parsed.warnings:
        say(f"Warning: {warning}")
    return parsed


def payloads_of(parsed: StackFile, files: Sequence[str]) -> tuple[list[SecretSpec], list[ConfigSpec]]:
    """Return the secrets and configs that the files bring. Raises InvalidStackFile."""
    secrets = [SecretSpec(data.name, data.labels, _content(data, files)) for data in parsed.secrets]
    configs = [ConfigSpec(data.name, data.labels, _content(data, files)) for data in parsed.configs]
    return secrets, configs


def tell_changes(changes: Sequence[StackChange]) -> None:
    for change in changes:
        if change.action in _PROGRESSIVE:
            click.echo(f"{_PROGRESSIVE[change.action]} {change.kind} {change.name}")
        else:
            click.echo(f"{change.kind.title()} {change.name} is {change.action}")


def _text(file: str) -> tuple[str, str]:
    """Return (name, text). Raises InvalidStackFile for a file that is not text, OSError for one that is not there."""
    name = "<stdin>" if file == "-" else file
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return name, content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidStackFile(
            f"{name}:{line}: the file is not UTF-8 text", remedy="Save it in UTF-8, and check its name."
        ) from error


def _folder(files: Sequence[str]) -> Path:
    """Return the folder from which paths in the stack file count: that of the first file."""
    return Path.cwd() if files[0] == "-" else Path(files[0]).parent


def _content(data: StackData, files: Sequence[str]) -> bytes:
    """Return what a secret or config of the stack holds; a relative path counts from the first Compose file.

    Raises InvalidStackFile, which names the place in the stack file.
    """
    if data.content is not None:
        return data.content
    path = _folder(files) / Path(data.file).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidStackFile(
            f"{data.place}: cannot read {path}: {error.strerror}", remedy="Paths count from the stack file's folder."
        ) from error
