"""Speak to a registry: the OCI distribution protocol, with anonymous tokens. Nothing it says is believed but by digest.

Plain HTTP is used for loopback addresses and those the administrator allowed; everything else is HTTPS.
"""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import aiohttp

from pyswarm.agent_runtime.image.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.codec.image_reference import ImageReference
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import NotFound, PermissionDenied, Unavailable

ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
ATTEMPTS = 4
RETRY = Backoff(first_seconds=0.2, cap_seconds=2.0)
TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_connect=5, sock_read=30)
_PASSING = {429, 500, 502, 503, 504}
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB = {"docker.io": "registry-1.docker.io"}


class Registry:
    """One registry for one pull. Use as an async context manager."""

    def __init__(self, reference: ImageReference, insecure: Sequence[str]) -> None:
        self._reference = reference
        host = _HUB.get(reference.registry, reference.registry)
        scheme = "http" if speaks_plain(host, insecure) else "https"
        self._base = f"{scheme}://{host}/v2/{reference.repository}"
        self._name = reference.registry
        self._token: str | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Registry":
        self._session = aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def manifest(self, tag_or_digest: str) -> bytes:
        """Return a manifest's bytes. Raises NotFound, PermissionDenied, Unavailable."""
        async with self._get(f"manifests/{tag_or_digest}", str(self._reference), accept=ACCEPT) as response:
            data = await response.content.read(MANIFEST_BYTES_MAX + 1)
            while not response.content.at_eof() and len(data) <= MANIFEST_BYTES_MAX:
                data += await response.content.read(MANIFEST_BYTES_MAX)
            if len(data) > MANIFEST_BYTES_MAX:
                raise Unavailable(f"registry {self._name} sends a manifest of more than {MANIFEST_BYTES_MAX} bytes")
            return data

    async def blob(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        """Yield a blob's bytes; a connection that breaks is taken up again where it was."""
        received, attempt = 0, 0
        what = f"blob {descriptor.digest[:19]}… of {self._reference}"
        while True:
            try:
                async with self._get(f"blobs/{descriptor.digest}", what, start=received) as response:
                    if received and response.status != 206:
                        # It does not know ranges: skip what we have.
                        skipped = 0
                        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                            fresh = chunk[max(0, received - skipped) :]
                            skipped += len(chunk)
                            if fresh:
                                yield fresh
                        return
                    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                        received += len(chunk)
                        yield chunk
                if descriptor.size < 0 or received >= descriptor.size:
                    return
                raise aiohttp.ClientPayloadError("the registry ended the blob early")
            except (aiohttp.ClientError, TimeoutError) as error:
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise self._unreachable(error) from error
                await asyncio.sleep(RETRY.delay_seconds(attempt, SYSTEM_ENTROPY.uniform(0, 1)))

    @asynccontextmanager
    async def _get(
        self, path: str, what: str, *, accept: str = "*/*", start: int = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a good response, after answering a challenge for a token and retrying what passes."""
        assert self._session is not None, "the registry is a context manager"
        attempt = 0
        while True:
            headers = {"Accept": accept}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            if start:
                headers["Range"] = f"bytes={start}-"
            try:
                response = await self._session.get(f"{self._base}/{path}", headers=headers)
            except (aiohttp.ClientError, TimeoutError) as error:
                attempt += 1
                if attempt >= ATTEMPTS or isinstance(error, aiohttp.ClientConnectorDNSError):
                    raise self._unreachable(error) from error
                await asyncio.sleep(RETRY.delay_seconds(attempt, SYSTEM_ENTROPY.uniform(0, 1)))
                continue
            async with response:
                if response.status in (200, 206):
                    yield response
                    return
                if response.status == 401 and self._token is None:
                    self._token = await self._fetch_token(response.headers.get("WWW-Authenticate", ""))
                    continue
                attempt += 1
                if response.status not in _PASSING or attempt >= ATTEMPTS:
                    raise self._refused(response.status, what)
            await asyncio.sleep(RETRY.delay_seconds(attempt, SYSTEM_ENTROPY.uniform(0, 1)))

    async def _fetch_token(self, challenge: str) -> str:
        assert self._session is not None, "the registry is a context manager"
        fields = dict(_CHALLENGE.findall(challenge))
        realm = fields.pop("realm", "")
        if not challenge.lower().startswith("bearer") or not realm.startswith(("http://", "https://")):
            raise PermissionDenied(
                f"registry {self._name} wants a login", remedy="Use a registry that allows anonymous pulls."
            )
        query = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        try:
            async with self._session.get(f"{realm}?{query}") as response:
                if response.status != 200:
                    raise self._refused(response.status, "a token")
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        return str(answer.get("token") or answer.get("access_token") or "")

    def _refused(self, status: int, what: str) -> NotFound | PermissionDenied | Unavailable:
        if status == 404:
            return NotFound(
                f"{what} was not found in registry {self._name}",
                remedy="Check the name and the tag, and that the image was pushed.",
            )
        if status in (401, 403):
            return PermissionDenied(
                f"registry {self._name} does not let us have {what}",
                remedy="The image may not exist, or the registry wants a login, which is not supported yet.",
            )
        return Unavailable(f"registry {self._name} answers with status {status} for {what}", remedy="Try again later.")

    def _unreachable(self, error: BaseException) -> Unavailable:
        reason = str(error) or type(error).__name__
        return Unavailable(
            f"cannot reach registry {self._name}: {reason}",
            remedy="Check the address; a registry without TLS must be listed under insecure-registries in config.toml.",
        )


def speaks_plain(host: str, insecure: Sequence[str]) -> bool:
    """Whether a registry is spoken to without TLS: it is loopback, or the administrator allowed it."""
    name = re.sub(r":\d+$", "", host)
    if name == "localhost" or host in insecure or name in insecure:
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for allowed in insecure:
        try:
            if address in ipaddress.ip_network(allowed, strict=False):
                return True
        except ValueError:
            continue
    return False
