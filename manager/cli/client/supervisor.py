"""pyswarmd's socket: one JSON object a line each way (docs/reference/seams.md)."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pyswarm.manager.cli.settings import Settings
from pyswarm.proto import errors
from pyswarm.proto.errors import Internal, SwarmError, Unavailable

REPLY_BYTES_MAX = 1 << 20

_ERRORS: Mapping[str, type[SwarmError]] = {
    cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, SwarmError)
}


def not_running(settings: Settings) -> Unavailable:
    return Unavailable(
        f"pyswarmd does not answer at {settings.paths.supervisor_socket}",
        remedy="Start it: `systemctl start pyswarmd`, or `pyswarm init` or `pyswarm join`, which start it themselves.",
    )


async def ask(
    settings: Settings,
    op: str,
    *,
    timeout_seconds: float,
    say: Callable[[str], None] = lambda _: None,
    **arguments: Any,
) -> dict[str, Any]:
    """Send one request and return pyswarmd's answer; `say` gets what it tells meanwhile.

    Raises the SwarmError that pyswarmd answers with, and Unavailable when it does not answer.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_unix_connection(
                str(settings.paths.supervisor_socket), limit=REPLY_BYTES_MAX
            )
            try:
                writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
                await writer.drain()
                return await _answer(reader, say)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError as error:
        raise Unavailable(
            f"pyswarmd has not finished `{op}` within {timeout_seconds:g} seconds",
            remedy=f"See {settings.paths.logs}/ for what it is waiting for.",
        ) from error
    except PermissionError as error:
        raise errors.PermissionDenied(
            f"{settings.paths.supervisor_socket} is for root only", remedy="Run the command again with sudo."
        ) from error
    except OSError as error:
        raise not_running(settings) from error


async def _answer(reader: asyncio.StreamReader, say: Callable[[str], None]) -> dict[str, Any]:
    while line := await reader.readline():
        try:
            message = json.loads(line)
        except ValueError as error:
            raise Internal(f"pyswarmd answered {line[:80]!r}, which is not JSON") from error
        if "progress" in message:
            say(str(message["progress"]))
        elif message.get("ok"):
            answer: dict[str, Any] = message
            return answer
        else:
            cls = _ERRORS.get(message.get("code", ""), Internal)
            raise cls(str(message.get("message", "pyswarmd refused")), remedy=message.get("remedy"))
    raise Unavailable("pyswarmd closed the connection without an answer", remedy="See its log, then try again.")
