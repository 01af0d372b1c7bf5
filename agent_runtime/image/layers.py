"""Unpacked layers: each stack of layers once, under its chain id, made aside and renamed when it is whole and right."""

import errno
import hashlib
import io
import os
import shutil
import zlib
from pathlib import Path
from typing import IO

import zstandard

from pyswarm.agent_runtime.image.beneath import BadLayer
from pyswarm.agent_runtime.image.content import WrongDigest, disk_error, sync_directory
from pyswarm.agent_runtime.image.extract import BYTES_MAX, extract
from pyswarm.agent_runtime.image.manifest import check_digest
from pyswarm.agent_runtime.kernel.syscalls import syncfs

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHUNK, _COMPRESSED_CHUNK = 1 << 18, 1 << 16
_STREAM_BYTES_MAX = BYTES_MAX + (1 << 30)
"""Of an unpacked archive: its files, and room for their headers."""


class LayerStore:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What a killed pull or removal left.
        for path in directory.glob(".new-*"):
            shutil.rmtree(path)

    def path(self, chain_id: str) -> Path:
        return self._directory / check_digest(chain_id).removeprefix("sha256:")

    def has(self, chain_id: str) -> bool:
        return self.path(chain_id).is_dir()

    def unpack(self, blob: Path, diff_id: str, chain_id: str) -> None:
        """Unpack a layer's archive. Blocks: call it in a thread. Raises BadLayer, WrongDigest; leaves nothing then."""
        if self.has(chain_id):
            return
        aside = self._directory / f".new-{os.urandom(8).hex()}"
        try:
            aside.mkdir()
            aside.chmod(0o755)  # the container's root directory must not depend on the daemon's umask
            descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with blob.open("rb") as file:
                    found = _extract_hashed(file, descriptor)
                if found != diff_id:
                    raise WrongDigest(f"a layer unpacks to {found} instead of {diff_id}")
                # A layer with its name counts as whole, also after a power failure.
                syncfs(descriptor)
            finally:
                os.close(descriptor)
            try:
                aside.rename(self.path(chain_id))
            except OSError as error:
                # A pull that was cancelled goes on unpacking in its thread, and may have been first.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        except OSError as error:
            raise disk_error(error, "a layer") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def remove(self, chain_id: str) -> None:
        """Delete a layer. Blocks: call it in a thread."""
        aside = self._directory / f".new-{os.urandom(8).hex()}"
        try:
            # Half a layer must not keep the name of a whole one: we may be killed while its files go.
            self.path(chain_id).rename(aside)
        except FileNotFoundError:
            return
        sync_directory(self._directory)
        shutil.rmtree(aside, ignore_errors=True)

    def chain_ids(self) -> set[str]:
        return {f"sha256:{path.name}" for path in self._directory.iterdir() if not path.name.startswith(".")}


class _Hashed(io.RawIOBase):
    """A stream that hashes all that is read from it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self._count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        self._count += len(data)
        if self._count > _STREAM_BYTES_MAX:
            raise BadLayer(f"the layer unpacks to more than {_STREAM_BYTES_MAX >> 30} GiB")
        return data


def _extract_hashed(file: IO[bytes], directory: int) -> str:
    """Extract a plain, gzip or zstd archive and return the digest of what was inside."""
    head = file.read(4)
    file.seek(0)
    try:
        if head.startswith(_GZIP):
            source: IO[bytes] = io.BufferedReader(_Inflated(file), _CHUNK)
        elif head.startswith(_ZSTD):
            source = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        else:
            source = file
        hashed = _Hashed(source)
        extract(hashed, directory)  # type: ignore[arg-type]
        # The archive may end before its stream does: padding counts too.
        while hashed.read(_CHUNK):
            pass
    except (zlib.error, zstandard.ZstdError) as error:
        raise BadLayer(f"the layer's compression is broken: {error}") from error
    return "sha256:" + hashed.digest.hexdigest()


class _Inflated(io.RawIOBase):
    """The content of a gzip file of any number of members."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=31)
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            data = self._pending or self._file.read(_COMPRESSED_CHUNK)
            if not data:
                if not self._inflater.eof:
                    raise BadLayer("the layer's archive is cut off")
                return 0
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(wbits=31)
            out = self._inflater.decompress(data, len(buffer))
            self._pending = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if out:
                buffer[: len(out)] = out
                return len(out)
