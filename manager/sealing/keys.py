"""Keep a manager's data keys (DEK): unique to it, mode 0600, wrapped by a KEK if there is one.

One is made at its first start; after an exchange the older ones stay until no file needs them (sealer.py).

Without a KEK they lie open beside what it seals, as in Swarm without autolock: it then protects discarded
journal files and backups that leave `sealing/` out. With one, the disk alone opens nothing.
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from pyswarm.manager.sealing.sealer import DATA_KEY_BYTES, Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import FailedPrecondition, Internal

FILE = "dek.msgpack"
KEK_BYTES = 32
_NONCE_BYTES = 12
_AAD = b"pyswarm data key 1"


class Locked(FailedPrecondition):
    """The data key is wrapped and no key, or a wrong one, was given to unwrap it."""

    code = "locked"
    remedy = "Unlock this manager with `pyswarm unlock` and the unlock key."


class KeyFileDamaged(Internal):
    remedy = "Restore `sealing/` from a backup of this manager, or remove its state and let it join again."


class _KeyFile(Struct, frozen=True):
    """`key` is the data keys behind each other, oldest first, or nonce + AES-256-GCM of that under the KEK."""

    format: Literal[1]
    wrapped: bool
    key: bytes


def open_sealer(directory: Path, *, kek: bytes | None = None, entropy: Entropy = SYSTEM_ENTROPY) -> Sealer:
    """Return the sealer of the manager whose `sealing/` this is; makes a data key when there is none.

    Args:
        directory: `<manager state>/sealing`, made with mode 0700.
        kek: 32 bytes that wrap the data keys; None stores them unwrapped.

    Raises:
        Locked: the stored key is wrapped and `kek` is None or wrong.
        KeyFileDamaged: the file is not what was written.
    """
    assert kek is None or len(kek) == KEK_BYTES, "a key-encryption key has 256 bits"
    file = directory / FILE
    save = partial(_write, file, kek, entropy)
    if file.exists():
        return Sealer(*_unwrap(_read(file), kek), save=save)
    data_key = entropy.bytes(DATA_KEY_BYTES)
    save([data_key])
    return Sealer(data_key, save=save)


def _read(file: Path) -> _KeyFile:
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=_KeyFile)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise KeyFileDamaged(f"{file} is damaged: {error}") from error


def _unwrap(stored: _KeyFile, kek: bytes | None) -> list[bytes]:
    if not stored.wrapped:
        together = stored.key
    elif kek is None:
        raise Locked("this manager's state is locked")
    else:
        nonce, sealed = stored.key[:_NONCE_BYTES], stored.key[_NONCE_BYTES:]
        try:
            together = AESGCM(kek).decrypt(nonce, sealed, _AAD)
        except (InvalidTag, ValueError) as error:
            raise Locked("the unlock key does not open this manager's state") from error
    if not together or len(together) % DATA_KEY_BYTES:
        raise KeyFileDamaged(f"the stored data keys have {len(together)} bytes, not a multiple of {DATA_KEY_BYTES}")
    return [together[at : at + DATA_KEY_BYTES] for at in range(0, len(together), DATA_KEY_BYTES)]


def _write(file: Path, kek: bytes | None, entropy: Entropy, data_keys: Sequence[bytes]) -> None:
    together = b"".join(data_keys)
    if kek is None:
        stored = _KeyFile(1, False, together)
    else:
        nonce = entropy.bytes(_NONCE_BYTES)
        stored = _KeyFile(1, True, nonce + AESGCM(kek).encrypt(nonce, together, _AAD))
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = file.with_name(file.name + ".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(msgspec.msgpack.encode(stored))
        out.flush()
        os.fsync(out.fileno())
    aside.rename(file)
    sync_directory(file.parent)
    sync_directory(file.parent.parent)
