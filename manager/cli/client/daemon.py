"""Make sure that pyswarmd runs: through systemd where its unit is installed, else in the background."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.settings import Settings
from pyswarm.proto.errors import FailedPrecondition, Unavailable

START_TIMEOUT_SECONDS = 15.0
UNIT = "pyswarmd.service"
_SYSTEMD_IS_RUNNING = Path("/run/systemd/system")
_UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))


async def ensure_running(settings: Settings) -> None:
    """Return once pyswarmd answers; start it if it does not. Raises Unavailable after a deadline."""
    if await _answers(settings):
        return
    if settings.paths.root == Path("/") and _has_unit():
        await _start_unit()
        await _until_it_answers(settings, None)
        return
    await _until_it_answers(settings, _start_in_background(settings))


def _has_unit() -> bool:
    return _SYSTEMD_IS_RUNNING.is_dir() and any((folder / UNIT).exists() for folder in _UNIT_FOLDERS)


async def _start_unit() -> None:
    process = await asyncio.create_subprocess_exec(
        "systemctl", "start", UNIT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(START_TIMEOUT_SECONDS):
        _, said = await process.communicate()
    if process.returncode != 0:
        raise FailedPrecondition(
            f"systemctl start {UNIT} failed: {said.decode(errors='replace').strip()}",
            remedy=f"See `journalctl -u {UNIT}`.",
        )


def _start_in_background(settings: Settings) -> "subprocess.Popen[bytes]":
    """Start pyswarmd in a session of its own, so that it outlives this command and its terminal."""
    settings.paths.logs.mkdir(parents=True, exist_ok=True)
    with (settings.paths.logs / "pyswarmd.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pyswarm.worker.node", "--root", str(settings.paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )


async def _until_it_answers(settings: Settings, started: "subprocess.Popen[bytes] | None") -> None:
    log = settings.paths.logs / "pyswarmd.log"
    try:
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            # A socket's appearance is no event that asyncio can wait for without a file watch of our own.
            while not await _answers(settings):
                if started is not None and started.poll() is not None:
                    raise Unavailable(
                        f"pyswarmd stopped at once with exit status {started.returncode}", remedy=f"See {log}."
                    )
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise Unavailable(
            f"pyswarmd was started but does not answer after {START_TIMEOUT_SECONDS:g} seconds", remedy=f"See {log}."
        ) from error


async def _answers(settings: Settings) -> bool:
    with contextlib.suppress(Unavailable):
        await ask(settings, "status", timeout_seconds=5.0)
        return True
    return False
