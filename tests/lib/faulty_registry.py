"""A registry that misbehaves as it is told: what real ones do once in a while, on demand."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from lib.oci_images import MadeImage


@dataclass
class FaultyRegistry:
    """Serves one image under any tag of `web`. Faults are counted down; `seen` counts requests by (status, path)."""

    image: MadeImage
    host: str = ""
    failures: int = 0
    """So many first requests are answered with status 503."""
    cut_blobs: int = 0
    """So many blobs end in their middle with the connection."""
    stalled_blobs: int = 0
    """So many blobs stop in their middle and keep the connection."""
    corrupt: str = ""
    """A blob of this digest has one byte changed."""
    knows_ranges: bool = True
    token: str = ""
    """Requests must carry it; it is given out at /token."""
    gives_tokens: bool = True
    """Otherwise those it gives are not valid."""
    redirects: bool = False
    """Blobs are elsewhere, where tokens must not be sent."""
    on_manifest: Callable[[], None] | None = None
    """Called when a manifest was asked for."""
    seen: Counter[tuple[int, str]] = field(default_factory=Counter)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def reference(self) -> str:
        return f"{self.host}/web:1"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = await self._answer(request)
        self.seen[response.status, request.path] += 1
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind, _, name = request.path.removeprefix("/v2/web/").partition("/")
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        if request.path == "/token":
            assert request.query == {"service": "tests", "scope": "repository:web:pull"}
            return web.json_response({"token": self.token if self.gives_tokens else "not valid"})
        if request.path.startswith("/elsewhere/"):
            return await self._blob(request, request.path.removeprefix("/elsewhere/"))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="http://{self.host}/token",service="tests",scope="repository:web:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if kind == "manifests":
            if self.on_manifest is not None:
                self.on_manifest()
            return web.Response(body=self.image.manifest, content_type=self.image.media_type)
        if self.redirects:
            # Another name of the same machine is another origin.
            elsewhere = self.host.replace("127.0.0.1", "localhost")
            return web.Response(status=307, headers={"Location": f"http://{elsewhere}/elsewhere/{name}"})
        return await self._blob(request, name)

    async def _blob(self, request: web.Request, digest: str) -> web.StreamResponse:
        if request.path.startswith("/elsewhere/"):
            assert "Authorization" not in request.headers
        data = self.image.blobs[digest]
        if digest == self.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        start = start if self.knows_ranges else 0
        data, status = data[start:], 206 if start else 200
        if self.cut_blobs:
            self.cut_blobs -= 1
            half = await self._half(request, data, status)
            assert request.transport is not None
            request.transport.close()
            return half
        if self.stalled_blobs:
            self.stalled_blobs -= 1
            half = await self._half(request, data, status)
            await self.ended.wait()
            return half
        return web.Response(body=data, status=status)

    async def _half(self, request: web.Request, data: bytes, status: int) -> web.StreamResponse:
        half = web.StreamResponse(status=status, headers={"Content-Length": str(len(data))})
        await half.prepare(request)
        await half.write(data[: (len(data) + 1) // 2])
        return half


@asynccontextmanager
async def faulty_registry(image: MadeImage) -> AsyncIterator[FaultyRegistry]:
    registry = FaultyRegistry(image)
    app = web.Application()
    app.router.add_get("/{path:.*}", registry.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        registry.host = f"127.0.0.1:{runner.addresses[0][1]}"
        yield registry
    finally:
        registry.ended.set()
        await runner.cleanup()
