"""Tell this node's pyswarmd something: one JSON line there, one back (docs/reference/seams.md)."""

import asyncio
import json
from pathlib import Path
from typing import Any

from pyswarm.proto.log import get_logger

log = get_logger(__name__)

ANSWER_SECONDS = 10.0


async def tell_supervisor(socket: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """Send a request and return the final answer; None (and a warning) when pyswarmd does not answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                await writer.drain()
                while line := await reader.readline():
                    answer: dict[str, Any] = json.loads(line)
                    if "ok" in answer:
                        return answer
            finally:
                writer.close()
    except (OSError, TimeoutError, json.JSONDecodeError) as error:
        log.warning("pyswarmd does not answer", op=request.get("op"), reason=str(error))
    return None
