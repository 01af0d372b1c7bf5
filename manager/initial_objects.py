"""The objects that `pyswarm init` made, from when they are made until they are in the replicated store.

They hold the root CA's key. In a cluster that is locked from the beginning the file is sealed under the unlock key,
which is among them too and must never be on a disk in the open.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pyswarm.manager.sealing.keys import unwrap, wrap
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.model.objects import Object
from pyswarm.proto.paths import NodePaths

_AAD = b"pyswarm initial objects 1"


def initial_objects_file(paths: NodePaths) -> Path:
    return paths.manager / "bootstrap.msgpack"


def write_initial_objects(file: Path, objects: Sequence[Object], *, unlock_key: bytes, entropy: Entropy) -> None:
    """Write them, sealed if there is an `unlock_key`, synced, for their owner alone."""
    content = msgspec.msgpack.encode(objects)
    if unlock_key:
        content = wrap(unlock_key, content, _AAD, entropy)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    sync_directory(file.parent)


def read_initial_objects(file: Path, *, unlock_key: bytes) -> list[Object]:
    """Return what was written with the same `unlock_key`. Raises Locked with another one."""
    content = file.read_bytes()
    if unlock_key:
        _, content = unwrap([unlock_key], content, _AAD)
    return msgspec.msgpack.decode(content, type=list[Object])
