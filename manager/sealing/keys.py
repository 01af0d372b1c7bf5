"""Keep a manager's data keys (DEK): unique to it, mode 0600, wrapped by a KEK if there is one.

One is made at its first start; after an exchange the older ones stay until no file needs them (sealer.py).

Without a KEK they lie open beside what it seals, as in Swarm without autolock: it then protects discarded
journal files and backups that leave `sealing/` out. With one, the disk alone opens nothing. Which KEK it is, the
cluster object says (autolock.py); the file remembers of which of its versions that was, so that an older one, as it
comes along when the journal is read again, never brings an older key back.
"""

import hmac
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta, Struct

from pyswarm.manager.sealing.sealer import DATA_KEY_BYTES, Sealer
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import Internal, Locked
from pyswarm.proto.unlock_key import UNLOCK_KEY_BYTES

FILE = "dek.msgpack"
_NONCE_BYTES = 12
_AAD = b"pyswarm data key 1"


class KeyFileDamaged(Internal):
    remedy = "Restore `sealing/` from a backup of this manager, or remove its state and let it join again."


class Kek(Struct, frozen=True):
    """What wraps the data keys: 32 bytes, b"" when they lie open; `version` is the cluster object's that says so."""

    key: bytes = b""
    version: int = 0

    def __repr__(self) -> str:
        return f"Kek(key={'…' if self.key else ''}, version={self.version})"

    def supersedes(self, other: "Kek") -> bool:
        """Whether a manager that has `other` must take this one: it is another key, and newer."""
        return self.version > other.version and not hmac.compare_digest(self.key, other.key)


NO_KEK = Kek()


class _KeyFile(Struct, frozen=True):
    """`key` is the data keys behind each other, oldest first, or nonce + AES-256-GCM of that under the KEK.

    `needs_rotation`: the newest data key once lay open on this disk, so that a lock which keeps it is worth little.
    """

    format: Literal[1]
    wrapped: bool
    key: bytes
    kek_version: Annotated[int, Meta(ge=0)] = 0
    needs_rotation: bool = False


class KeyFile:
    """Holds a manager's data keys and the KEK in memory and keeps the file as they are. Used from several threads."""

    def __init__(
        self, file: Path, *, kek: Kek, data_keys: Sequence[bytes], needs_rotation: bool, entropy: Entropy
    ) -> None:
        self._file = file
        self._kek = kek
        self._data_keys = tuple(data_keys)
        self._needs_rotation = needs_rotation
        self._entropy = entropy
        # Data keys are exchanged in the journal's thread, the KEK from another one.
        self._writing = threading.Lock()
        self.sealer = Sealer(*data_keys, save=self.save)

    @property
    def kek(self) -> Kek:
        return self._kek

    @property
    def needs_rotation(self) -> bool:
        """Whether a new data key should be made because the newest lay on this disk unwrapped."""
        return self._needs_rotation

    def save(self, data_keys: Sequence[bytes]) -> None:
        """Keep these data keys instead, wrapped as before. Blocking; they are on the disk when it returns."""
        with self._writing:
            needs_rotation = self._needs_rotation and data_keys[-1] == self._data_keys[-1]
            self._write(self._kek, data_keys, needs_rotation)
            self._data_keys, self._needs_rotation = tuple(data_keys), needs_rotation

    def rewrap(self, kek: Kek) -> None:
        """Wrap the data keys with another KEK, or none. Blocking; it is on the disk when it returns.

        That data keys which lay open must be exchanged is written with the same stroke: a crash before they are does
        not make a manager forget it.
        """
        with self._writing:
            needs_rotation = bool(kek.key) and (self._needs_rotation or not self._kek.key)
            self._write(kek, self._data_keys, needs_rotation)
            self._kek, self._needs_rotation = kek, needs_rotation

    def _write(self, kek: Kek, data_keys: Sequence[bytes], needs_rotation: bool) -> None:
        together = b"".join(data_keys)
        if kek.key:
            together = wrap(kek.key, together, _aad(kek.version, needs_rotation), self._entropy)
        stored = _KeyFile(1, bool(kek.key), together, kek.version, needs_rotation)
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self._file.with_name(self._file.name + ".new")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(msgspec.msgpack.encode(stored))
            out.flush()
            os.fsync(out.fileno())
        aside.rename(self._file)
        sync_directory(self._file.parent)
        sync_directory(self._file.parent.parent)

    def __repr__(self) -> str:
        return "KeyFile(…)"


def open_key_file(
    directory: Path,
    *,
    unlock_keys: Sequence[bytes] = (),
    first_kek: Kek = NO_KEK,
    entropy: Entropy = SYSTEM_ENTROPY,
) -> KeyFile:
    """Return the keys of the manager whose `sealing/` this is; makes a data key when there is none.

    Args:
        directory: `<manager state>/sealing`, made with mode 0700.
        unlock_keys: what may open it, 32 bytes each.
        first_kek: wraps the first data key, when it is made.

    Raises:
        Locked: the stored keys are wrapped and none of `unlock_keys` opens them.
        KeyFileDamaged: the file is not what was written.
    """
    file = directory / FILE
    if file.exists():
        stored = _read(file)
        key, data_keys = _unwrap(stored, unlock_keys)
        return KeyFile(
            file,
            kek=Kek(key, stored.kek_version),
            data_keys=data_keys,
            needs_rotation=stored.needs_rotation,
            entropy=entropy,
        )
    data_keys = [entropy.bytes(DATA_KEY_BYTES)]
    made = KeyFile(file, kek=first_kek, data_keys=data_keys, needs_rotation=False, entropy=entropy)
    made.save(data_keys)
    return made


def open_sealer(directory: Path, *, unlock_keys: Sequence[bytes] = (), entropy: Entropy = SYSTEM_ENTROPY) -> Sealer:
    """Return the sealer alone, of a manager that is not running; raises as `open_key_file`."""
    return open_key_file(directory, unlock_keys=unlock_keys, entropy=entropy).sealer


def has_key_file(directory: Path) -> bool:
    return (directory / FILE).exists()


def wrap(key: bytes, plain: bytes, aad: bytes, entropy: Entropy) -> bytes:
    """Return nonce + AES-256-GCM of `plain`; `aad` is authenticated with it."""
    assert len(key) == UNLOCK_KEY_BYTES, "a key-encryption key has 256 bits"
    nonce = entropy.bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, aad)


def unwrap(keys: Sequence[bytes], wrapped: bytes, aad: bytes) -> tuple[bytes, bytes]:
    """Return which of `keys` opens it, and what is in it. Raises Locked when none does."""
    if not keys:
        raise Locked("this manager's state is locked")
    nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    for key in keys:
        try:
            return key, AESGCM(key).decrypt(nonce, sealed, aad)
        except (InvalidTag, ValueError):
            continue
    raise Locked("the unlock key does not open this manager's state")


def _aad(kek_version: int, needs_rotation: bool) -> bytes:
    return _AAD + kek_version.to_bytes(8, "big") + bytes([needs_rotation])


def _read(file: Path) -> _KeyFile:
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=_KeyFile)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise KeyFileDamaged(f"{file} is damaged: {error}") from error


def _unwrap(stored: _KeyFile, unlock_keys: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the KEK, b"" for none, and the data keys."""
    key, together = b"", stored.key
    if stored.wrapped:
        key, together = unwrap(unlock_keys, stored.key, _aad(stored.kek_version, stored.needs_rotation))
    if not together or len(together) % DATA_KEY_BYTES:
        raise KeyFileDamaged(f"the stored data keys have {len(together)} bytes, not a multiple of {DATA_KEY_BYTES}")
    return key, [together[at : at + DATA_KEY_BYTES] for at in range(0, len(together), DATA_KEY_BYTES)]
