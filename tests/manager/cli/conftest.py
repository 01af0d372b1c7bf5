"""The command line against a control API in memory, on a real socket."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from lib.fake_control import FakeControl, serving_control

from pyswarm.manager.cli.main import cli
from pyswarm.proto.paths import NodePaths


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


class CommandLine:
    """`run("node", "ls")` is `pyswarm node ls` on a node whose files are under `paths.root`."""

    def __init__(self, root: Path) -> None:
        self.paths = NodePaths(root)

    def run(self, *words: str, input: str | bytes | None = None, **environment: str) -> Said:
        done = CliRunner().invoke(cli, ["--root", str(self.paths.root), *words], input=input, env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def ok(self, *words: str, input: str | bytes | None = None, **environment: str) -> str:
        said = self.run(*words, input=input, **environment)
        assert said.status == 0, said
        return said.out

    def fails(self, *words: str, **environment: str) -> str:
        said = self.run(*words, **environment)
        assert said.status == 1, said
        return said.err


@pytest.fixture
def pyswarm(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def control(pyswarm: CommandLine) -> Iterator[FakeControl]:
    fake = FakeControl()
    with serving_control(pyswarm.paths.manager_socket, fake):
        yield fake
