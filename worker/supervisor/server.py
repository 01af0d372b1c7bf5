"""pyswarmd's unix socket: one JSON object a line each way (docs/reference/seams.md)."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from pyswarm.proto.errors import Internal, InvalidArgument, SwarmError
from pyswarm.proto.log import get_logger
from pyswarm.worker.supervisor.membership import Membership

log = get_logger(__name__)

REQUEST_SECONDS = 30.0
"""How long a client may take to send its one line."""


class SupervisorServer:
    def __init__(self, path: Path, membership: Membership) -> None:
        self._path = path
        self._membership = membership
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; the socket is for root only."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._converse, str(self._path))
        finally:
            os.umask(before)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(message: dict[str, Any]) -> None:
            writer.write(json.dumps(message).encode() + b"\n")
            await writer.drain()

        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readline()
            if line:
                await send(await self._answer(line, send))
        except (ConnectionError, TimeoutError):
            log.debug("a client of pyswarmd went away")
        finally:
            writer.close()

    async def _answer(self, line: bytes, send: Any) -> dict[str, Any]:
        async def say(text: str) -> None:
            # A client that has gone away does not stop what it asked for.
            try:
                await send({"progress": text})
            except ConnectionError:
                log.debug("nobody listens to the progress")

        op = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
            op = request.get("op")
            return {"ok": True, **await self._do(request, say)}
        except SwarmError as error:
            return _refusal(error)
        except ValueError as error:
            return _refusal(InvalidArgument(f"not a request: {error}"))
        except Exception as error:
            # Its name alone: keys and tokens are among the arguments.
            log.exception("a request failed", op=op)
            return _refusal(Internal(f"{type(error).__name__}: {error}"))

    async def _do(self, request: dict[str, Any], say: Any) -> dict[str, Any]:
        membership = self._membership
        match request.get("op"):
            case "status":
                return await membership.status()
            case "init":
                return await membership.init(request, say)
            case "force-new-cluster":
                return await membership.force_new_cluster(request, say)
            case "restore":
                return await membership.restore(request, say)
            case "join":
                return await membership.join(request, say)
            case "leave":
                return await membership.leave(request, say)
            case "unlock":
                return await membership.unlock(request, say)
            case "unlock-keys":
                return await membership.keep_unlock_keys(request)
            case "readdress":
                return await membership.readdress(request, say)
            case "joined":
                return await membership.joined()
            case "session":
                return await membership.session()
            case "managers":
                return await membership.managers(request)
            case "role":
                return await membership.role(request)
            case other:
                raise InvalidArgument(f"pyswarmd knows no operation {other!r}", remedy="Are both of one version?")


def _refusal(error: SwarmError) -> dict[str, Any]:
    return {"ok": False, "code": error.code, "message": error.message, "remedy": error.remedy}
