"""Make probes: execute a program in the container, ask over HTTP, or open a TCP connection to its address.

What an outcome means is `health.py`'s to decide. A probe that could not be made (the runtime is away, the container has
just ended or is paused) says nothing about the container, and is told apart from one that failed.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pyswarm.proto.errors import FailedPrecondition, NotFound, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.spec import HealthConfig
from pyswarm.worker.agent.health import Health, after_probe, pause_before_probe
from pyswarm.worker.runtime.port import RuntimePort

log = get_logger(__name__)

RETRY_SECONDS = 1.0
"""Pause after a probe that could not be made."""

STATUS_LINE_BYTES = 1024


@dataclass(frozen=True)
class Outcome:
    passed: bool
    output: str = ""


Probe = Callable[[], Awaitable[Outcome | None]]
"""Make one probe; None when it could not be made."""


class Prober:
    """Probes one container as its config says, until cancelled; `changed` is called when the verdict is another one."""

    def __init__(self, config: HealthConfig, health: Health, probe: Probe, changed: Callable[[], None]) -> None:
        self.health = health
        self._config = config
        self._probe = probe
        self._changed = changed

    async def run(self) -> None:
        clock = asyncio.get_running_loop()
        while True:
            outcome = await self._probe()
            if outcome is None:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            before = self.health
            self.health = after_probe(
                before, self._config, passed=outcome.passed, output=outcome.output, now=clock.time()
            )
            if self.health.verdict is not before.verdict:
                self._changed()
            await asyncio.sleep(pause_before_probe(self.health, self._config))


async def probe_container(
    runtime: RuntimePort, container_id: str, config: HealthConfig, address: str
) -> Outcome | None:
    """Make one probe of a running container whose address is `address`."""
    kind, *words = config.test
    match kind:
        case "HTTP":
            return await _within(config.timeout_seconds, _ask_http(address, words[0]))
        case "TCP":
            return await _within(config.timeout_seconds, _connect(address, words[0]))
        case "CMD":
            return await _execute(runtime, container_id, tuple(words), config.timeout_seconds)
        case _:
            return await _execute(runtime, container_id, ("/bin/sh", "-c", *words), config.timeout_seconds)


async def _execute(
    runtime: RuntimePort, container_id: str, args: tuple[str, ...], timeout_seconds: float
) -> Outcome | None:
    try:
        done = await runtime.execute(container_id, args, timeout_seconds=timeout_seconds)
    except (Unavailable, NotFound, FailedPrecondition) as error:
        log.debug("no probe could be made", container=container_id, reason=error.message)
        return None
    except SwarmError as error:
        return Outcome(passed=False, output=error.message)
    output = done.output.decode(errors="replace")
    if done.timed_out:
        return Outcome(passed=False, output=f"health check exceeded its timeout of {timeout_seconds:g} s")
    return Outcome(passed=done.exit_code == 0, output=output or f"exit code {done.exit_code}")


async def _within(timeout_seconds: float, answer: Awaitable[Outcome]) -> Outcome:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await answer
    except TimeoutError:
        return Outcome(passed=False, output=f"no answer within {timeout_seconds:g} s")
    except OSError as error:
        return Outcome(passed=False, output=os.strerror(error.errno) if error.errno else str(error))


async def _connect(address: str, port: str) -> Outcome:
    _, writer = await asyncio.open_connection(address, int(port))
    writer.transport.abort()
    return Outcome(passed=True)


async def _ask_http(address: str, target: str) -> Outcome:
    """GET a page: any answer from 200 to 399 passes. HTTP/1.0, so that the server ends the connection."""
    port, _, path = target.partition("/")
    reader, writer = await asyncio.open_connection(address, int(port), limit=STATUS_LINE_BYTES)
    try:
        writer.write(f"GET /{path} HTTP/1.0\r\nHost: {address}:{port}\r\nUser-Agent: pyswarm-probe\r\n\r\n".encode())
        await writer.drain()
        try:
            line = (await reader.readline()).decode("latin-1").strip()
        except ValueError:
            return Outcome(passed=False, output="the answer is not HTTP")
    finally:
        writer.transport.abort()
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/") or not (len(status) >= 3 and status[:3].isdigit()):
        return Outcome(passed=False, output="the answer is not HTTP")
    return Outcome(passed=200 <= int(status[:3]) < 400, output=f"HTTP status {status}")
