"""All simulated agents of a cluster, spread over a few processes (agents.py), and what they have seen together."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGENTS_PER_PROCESS = 500
LOOK_SECONDS = 0.25
LINE_BYTES_MAX = 64 * 1024 * 1024
PROCESS = Path(__file__).with_name("agents.py")


@dataclass
class Fleet:
    dispatch_seconds: list[float] = field(default_factory=list)
    reports: int = 0
    running: int = 0
    _processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def launch(self, processes: int) -> None:
        paths = [str(PROCESS.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        for _ in range(processes):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(PROCESS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
            self._processes.append(process)

    async def join(self, count: int, *, token: str, root_pem: str, managers: list[str]) -> None:
        """Have `count` certificates issued and sessions opened."""
        shares = [len(range(at, count, len(self._processes))) for at in range(len(self._processes))]
        common = {"token": token, "root_pem": root_pem, "managers": managers}
        await asyncio.gather(
            *(
                _ask(process, "join", prefix=f"agent-{at}", count=share, **common)
                for at, (process, share) in enumerate(zip(self._processes, shares, strict=True))
            )
        )

    async def start(self) -> None:
        await self._ask_all("start")

    async def kill(self, count: int) -> int:
        """Cut the power of `count` agents; return how many running tasks that took."""
        shares = [len(range(at, count, len(self._processes))) for at in range(len(self._processes))]
        asked = zip(self._processes, shares, strict=True)
        return sum(a["tasks"] for a in await asyncio.gather(*(_ask(p, "kill", count=n) for p, n in asked)))

    async def revive(self) -> None:
        await self._ask_all("revive")

    async def look(self) -> None:
        """Take in what happened since the last look."""
        answers = await self._ask_all("look")
        self.running = sum(answer["running"] for answer in answers)
        self.reports += sum(answer["reports"] for answer in answers)
        for answer in answers:
            self.dispatch_seconds += answer["dispatch_seconds"]

    async def until(self, holds: Callable[["Fleet"], bool], what: str, timeout_seconds: float) -> float:
        """Look until `holds(self)`; return the seconds it took."""
        began = time.monotonic()
        while True:
            await self.look()
            if holds(self):
                return time.monotonic() - began
            if time.monotonic() - began > timeout_seconds:
                raise TimeoutError(f"waited {timeout_seconds:g} s for {what}: {self.running} tasks run")
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask_all(self, do: str) -> list[dict[str, Any]]:
        return await asyncio.gather(*(_ask(process, do) for process in self._processes))

    async def stop(self) -> None:
        for process in self._processes:
            process.kill()
            await process.wait()


async def _ask(process: asyncio.subprocess.Process, do: str, **asked: Any) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"do": do, **asked}).encode() + b"\n")
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a process of simulated agents has ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


@asynccontextmanager
async def fleet(agents: int) -> AsyncIterator[Fleet]:
    """Processes enough for so many agents; they end with the context."""
    found = Fleet()
    try:
        await found.launch(-(-agents // AGENTS_PER_PROCESS))
        yield found
    finally:
        await found.stop()
