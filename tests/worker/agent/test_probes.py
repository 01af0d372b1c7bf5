"""Probes against real sockets, and against a runtime that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from lib.fake_runtime import FakeRuntime

from pyswarm.proto.errors import InvalidArgument, Unavailable
from pyswarm.proto.model.spec import HealthConfig
from pyswarm.worker.agent.probes import Outcome, probe_container
from pyswarm.worker.runtime.port import Executed


async def probe(*test: str, runtime: FakeRuntime | None = None, timeout: float = 5.0) -> Outcome | None:
    return await probe_container(
        runtime or FakeRuntime(), "c1", HealthConfig(test=test, timeout_seconds=timeout), "127.0.0.1"
    )


class Server:
    """Answers every connection with `answer`; None never answers."""

    def __init__(self) -> None:
        self.answer: bytes | None = b""
        self.asked: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readline())
        if self.answer is not None:
            writer.write(self.answer)
            await writer.drain()
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()


@pytest.mark.parametrize(
    ("answer", "passed", "told"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", True, "HTTP status 200 OK", id="a page is there"),
        pytest.param(b"HTTP/1.1 302 Found\r\n\r\n", True, "HTTP status 302 Found", id="or elsewhere"),
        pytest.param(b"HTTP/1.1 503 Busy\r\n\r\n", False, "HTTP status 503 Busy", id="the server says no"),
        pytest.param(b"SSH-2.0\r\n", False, "the answer is not HTTP", id="it is no web server"),
        pytest.param(b"HTTP/1.1 2", False, "the answer is not HTTP", id="it broke off"),
        pytest.param(b"x" * 5000, False, "the answer is not HTTP", id="it talks without end"),
    ],
)
async def test_a_web_server_is_asked_for_a_page(server: Server, answer: bytes, passed: bool, told: str):
    server.answer = answer
    assert await probe("HTTP", f"{server.port}/healthz?full=1") == Outcome(passed, told)
    assert server.asked == [b"GET /healthz?full=1 HTTP/1.0\r\n"]


async def test_a_server_that_does_not_answer_in_time_fails(server: Server):
    server.answer = None
    outcome = await probe("HTTP", f"{server.port}", timeout=0.05)
    assert outcome == Outcome(passed=False, output="no answer within 0.05 s")


async def test_a_tcp_port_passes_while_somebody_listens(server: Server):
    assert await probe("TCP", str(server.port)) == Outcome(passed=True)


async def test_a_port_nobody_listens_on_fails_with_the_cause():
    listening = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    outcome = await probe("TCP", str(port))
    assert outcome is not None
    assert not outcome.passed
    assert "refused" in outcome.output.lower()


async def test_a_command_is_executed_in_the_container():
    runtime = FakeRuntime()
    assert await probe("CMD", "pg_isready", "-q", runtime=runtime) == Outcome(passed=True, output="exit code 0")
    runtime.exec_answer = Executed(3, b"not yet\n")
    assert await probe("CMD-SHELL", "curl -f localhost", runtime=runtime) == Outcome(passed=False, output="not yet\n")
    assert runtime.executed == [("pg_isready", "-q"), ("/bin/sh", "-c", "curl -f localhost")]


async def test_a_command_that_takes_too_long_fails_whatever_it_answers():
    runtime = FakeRuntime()
    runtime.exec_answer = Executed(0, timed_out=True)
    outcome = await probe("CMD", "sleep", "9", runtime=runtime)
    assert outcome is not None
    assert (outcome.passed, outcome.output) == (False, "health check exceeded its timeout of 5 s")


async def test_a_runtime_that_is_away_says_nothing_about_the_container():
    runtime = FakeRuntime()
    runtime.failures["execute"] = Unavailable("it restarts")
    assert await probe("CMD", "true", runtime=runtime) is None
    runtime.failures["execute"] = InvalidArgument("no such user")
    assert await probe("CMD", "true", runtime=runtime) == Outcome(passed=False, output="no such user")
