"""Speak to a registry: the OCI distribution protocol, with anonymous tokens. Nothing it says is believed but by digest.

Plain HTTP is used for loopback addresses and those the administrator allowed; everything else is HTTPS.
"""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlencode, urlsplit

import aiohttp

from pyswarm.agent_runtime.image.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, read_json
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.codec.image_reference import ImageReference
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import NotFound, PermissionDenied, Unavailable

ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
TOKEN_BYTES_MAX = 64 * 1024
CHUNK_BYTES = 256 * 1024
RETRY = Backoff(first_seconds=0.2, cap_seconds=2.0)
ATTEMPTS = 5
GIVE_UP_SECONDS = 10.0
"""How long after its first failure a request is tried again while nothing of its answer comes."""
AMPLE_BYTES = 8 * 1024 * 1024
"""So much of a blob makes up for the failures before it."""
TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_connect=5, sock_read=30)
_PASSING = {429, 500, 502, 503, 504}
_BROKEN = (aiohttp.ClientError, TimeoutError)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB = {"docker.io": "registry-1.docker.io"}


class Registry:
    """One registry for one pull. Use as an async context manager."""

    def __init__(self, reference: ImageReference, insecure: Sequence[str]) -> None:
        self._reference = reference
        self._insecure = tuple(insecure)
        host = _HUB.get(reference.registry, reference.registry)
        self._scheme = "http" if speaks_plain(host, insecure) else "https"
        self._base = f"{self._scheme}://{host}/v2/{reference.repository}"
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
        """Return a manifest's bytes, unverified. Raises NotFound, PermissionDenied, Unavailable."""
        retries = _Retries()
        while True:
            async with self._get(f"manifests/{tag_or_digest}", str(self._reference), retries, accept=ACCEPT) as answer:
                try:
                    data = b"".join([chunk async for chunk in _bounded(answer, MANIFEST_BYTES_MAX)])
                except _BROKEN as error:
                    await retries.wait_after(self._unreachable(error))
                    continue
            if len(data) > MANIFEST_BYTES_MAX:
                raise Unavailable(
                    f"registry {self._name} sends a manifest of more than {MANIFEST_BYTES_MAX} bytes",
                    remedy="No image has such a manifest: check what answers at this address.",
                )
            return data

    async def blob(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        """Yield a blob's bytes, unverified; a connection that breaks is taken up again where it was."""
        received, retries = 0, _Retries()
        what = f"blob {descriptor.digest[:19]}… of {self._reference}"
        while True:
            async with self._get(f"blobs/{descriptor.digest}", what, retries, start=received) as answer:
                # A registry that does not know ranges sends again what we have.
                to_skip = received if answer.status != 206 else 0
                try:
                    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                        fresh = chunk[to_skip:]
                        to_skip = max(0, to_skip - len(chunk))
                        if fresh:
                            received += len(fresh)
                            retries.note_progress(len(fresh))
                            yield fresh
                    if descriptor.size < 0 or received >= descriptor.size:
                        return
                    broken: Exception = aiohttp.ClientPayloadError(f"it ended {what} early")
                except _BROKEN as error:
                    broken = error
            await retries.wait_after(self._unreachable(broken))

    @asynccontextmanager
    async def _get(
        self, path: str, what: str, retries: "_Retries", *, accept: str = "*/*", start: int = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a good answer, after answering one challenge for a token and retrying what passes."""
        assert self._session is not None, "the registry is a context manager"
        has_fresh_token = False
        while True:
            headers = {"Accept": accept, "Accept-Encoding": "identity"}  # digests are of the bytes as kept
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            if start:
                headers["Range"] = f"bytes={start}-"
            try:
                response = await self._session.get(f"{self._base}/{path}", headers=headers)
            except aiohttp.ClientConnectorDNSError as error:
                raise self._unreachable(error) from error
            except _BROKEN as error:
                await retries.wait_after(self._unreachable(error))
                continue
            async with response:
                self._check_transport(response.url.scheme, response.url.host)
                if response.status in (200, 206):
                    yield response
                    return
                # Tokens live for minutes, pulls may take longer: each request may fetch a new one.
                if response.status == 401 and not has_fresh_token:
                    self._token = await self._fetch_token(response.headers.get("WWW-Authenticate", ""))
                    has_fresh_token = True
                    continue
                refused = self._refused(response.status, what)
                if response.status not in _PASSING:
                    raise refused
            await retries.wait_after(refused)

    def _check_transport(self, scheme: str, host: str | None) -> None:
        """Refuse to be led from TLS to plain text."""
        if self._scheme == "https" and scheme != "https" and not speaks_plain(host or "", self._insecure):
            raise PermissionDenied(
                f"registry {self._name} leads to {host} without TLS",
                remedy="List that host under insecure-registries in config.toml if it is to be trusted.",
            )

    async def _fetch_token(self, challenge: str) -> str:
        assert self._session is not None, "the registry is a context manager"
        fields = dict(_CHALLENGE.findall(challenge))
        realm = fields.pop("realm", "")
        if not challenge.lower().startswith("bearer") or not realm.startswith(("http://", "https://")):
            raise PermissionDenied(
                f"registry {self._name} wants a login", remedy="Use a registry that allows anonymous pulls."
            )
        target = urlsplit(realm)
        self._check_transport(target.scheme, target.hostname)
        query = urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
        try:
            async with self._session.get(f"{realm}?{query}") as response:
                if response.status != 200:
                    raise self._refused(response.status, "a token")
                data = b"".join([chunk async for chunk in _bounded(response, TOKEN_BYTES_MAX)])
                answer = read_json(data, f"the token of registry {self._name}")
        except _BROKEN as error:
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


class _Retries:
    """How often a request that fails in passing is made again: a few times, within a bounded time."""

    def __init__(self) -> None:
        self._attempt = 0
        self._brought = 0
        self._deadline: float | None = None

    def note_progress(self, count: int) -> None:
        """Forget how long it fails, and how often once much has come: a registry could bring one byte each time."""
        self._deadline = None
        self._brought += count
        if self._brought >= AMPLE_BYTES:
            self._attempt = self._brought = 0

    async def wait_after(self, error: Unavailable | NotFound | PermissionDenied) -> None:
        """Wait before the next attempt, or raise `error` when there shall be none."""
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            # From the first failure, not from the last byte: a silence may have taken longer to be noticed.
            self._deadline = now + GIVE_UP_SECONDS
        self._attempt += 1
        delay = RETRY.delay_seconds(self._attempt, SYSTEM_ENTROPY.uniform(0, 1))
        if self._attempt >= ATTEMPTS or now + delay > self._deadline:
            raise error
        await asyncio.sleep(delay)


async def _bounded(answer: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    """Yield a body until it ends or has brought more than `limit` bytes."""
    count = 0
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        count += len(chunk)
        yield chunk
        if count > limit:
            return


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
