"""Blobs by digest: written aside while they are hashed, synced, and given their name only when the digest is right."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from pyswarm.agent_runtime.image.manifest import check_digest, digest_of
from pyswarm.proto.errors import Internal, ResourceExhausted


class WrongDigest(Internal):
    """Bytes that are not what they were said to be."""

    code = "wrong-digest"
    remedy = "The registry or the way to it is faulty: nothing was kept. Try again, or push the image anew."


class ContentStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What a killed download left.
        for path in directory.glob(".new-*"):
            path.unlink()

    def path(self, digest: str) -> Path:
        return self._directory / check_digest(digest).removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def read(self, digest: str) -> bytes:
        """Return a small blob, verified again: the disk may lie. Raises WrongDigest."""
        data = self.path(digest).read_bytes()
        if digest_of(data) != digest:
            raise WrongDigest(f"blob {digest} is damaged on this node's disk")
        return data

    async def write(self, digest: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep what `chunks` bring if it hashes to `digest`.

        Raises WrongDigest, ResourceExhausted; keeps nothing then.
        """
        aside = self._directory / f".new-{check_digest(digest).removeprefix('sha256:')}-{os.urandom(4).hex()}"
        seen, count = hashlib.sha256(), 0
        try:
            with aside.open("wb") as file:
                async for chunk in chunks:
                    seen.update(chunk)
                    count += len(chunk)
                    if 0 <= size < count:
                        raise WrongDigest(f"blob {digest} is longer than the {size} bytes it was said to have")
                    file.write(chunk)
                file.flush()
                # A large blob takes its time, in which others want to be served.
                await asyncio.to_thread(os.fsync, file.fileno())
            found = "sha256:" + seen.hexdigest()
            if found != digest:
                raise WrongDigest(f"a blob that should be {digest} is {found} ({count} bytes)")
            aside.rename(self.path(digest))
        except OSError as error:
            raise disk_error(error, f"blob {digest}") from error
        finally:
            aside.unlink(missing_ok=True)

    def put(self, data: bytes) -> str:
        """Keep a small blob and return its digest."""
        digest = digest_of(data)
        aside = self._directory / f".new-{os.urandom(8).hex()}"
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.path(digest))
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise disk_error(error, "an image") from error
        return digest

    def remove(self, digest: str) -> None:
        with suppress(FileNotFoundError):
            self.path(digest).unlink()

    def digests(self) -> set[str]:
        return {f"sha256:{path.name}" for path in self._directory.iterdir() if not path.name.startswith(".")}


def sync_directory(directory: Path) -> None:
    """Make what was renamed in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(error: OSError, what: str) -> ResourceExhausted | Internal:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            f"no space left for {what}", remedy="Remove images that are not needed: `pyswarm image ls`, `image rm`."
        )
    return Internal(f"{what} could not be written: {error}")
