"""Containers started by the C executor and by the one in Python, which is what a machine without a compiler has."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lib.runtime_host import EITHER_EXECUTOR, RuntimeHost, runtime_host, settings_of

from pyswarm.proto.errors import FailedPrecondition

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=EITHER_EXECUTOR)
async def host(layer: Path, request: pytest.FixtureRequest) -> AsyncIterator[RuntimeHost]:
    async with runtime_host(layer, settings=settings_of(request.param)) as running:
        pid = running.spawner_pid()
        mapped = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert request.param in mapped
        yield running


async def test_a_container_runs_confined_and_reports_how_it_ended(host: RuntimeHost) -> None:
    code, lines = await host.shell("echo $$ $(hostname); grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; exit 7")
    assert code == 7
    assert [line.split() for line in lines] == [["1", "shell"], ["NoNewPrivs:", "1"], ["Seccomp:", "2"]]


async def test_a_program_that_is_not_there_is_explained(host: RuntimeHost) -> None:
    with pytest.raises(FailedPrecondition, match='executable "nothing" not found'):
        await host.start("missing", "nothing")
    await host.remove("missing")


async def test_many_start_at_once(host: RuntimeHost) -> None:
    ended = await asyncio.gather(*(host.run(f"c{number}", "sh", "-c", f"exit {number}") for number in range(40)))
    assert [code for code, _ in ended] == list(range(40))
