"""Read and write small files with as few system calls as it takes: no buffers, no look at what they are.

Python's file objects make three calls more for each file, and a container's life has some thirty of them. Standard
library only.
"""

import os
from pathlib import Path

_CHUNK_BYTES = 16 * 1024


def read(path: Path | str) -> bytes:
    """Return a file's content. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = piece = os.read(descriptor, _CHUNK_BYTES)
        while piece:
            piece = os.read(descriptor, _CHUNK_BYTES)
            content += piece
        return content
    finally:
        os.close(descriptor)


def write_new(path: Path | str, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file, making it or replacing what was in it. Raises OSError."""
    _write(path, [content], os.O_CREAT | os.O_TRUNC, mode)


def tell(path: Path | str, *words: bytes) -> None:
    """Write to a file of the kernel's, each word on its own. Raises OSError."""
    _write(path, words, 0, 0)


def _write(path: Path | str, pieces: "tuple[bytes, ...] | list[bytes]", flags: int, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, mode)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
