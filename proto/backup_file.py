"""A backup of a cluster in one file, sealed under a key that only the operator has.

    file  = magic, version, salt, frame*
    frame = length, AES-256-GCM(kind byte, content): the facts, pieces of the store, and an end that counts them

The key of a file is made from the operator's key and the file's salt, so one operator's key may seal many backups.
Frames are numbered and authenticated together with the preamble: a file that was cut, mixed or altered does not open.
"""

import base64
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyswarm.proto.backup_facts import BackupFacts
from pyswarm.proto.certificate_files import sync_directory
from pyswarm.proto.entropy import SYSTEM_ENTROPY, Entropy
from pyswarm.proto.errors import InvalidArgument

KEY_PREFIX: Final = "PYSWARM-BACKUP-1-"
KEY_BYTES: Final = 32
FRAME_BYTES_MAX: Final = 1024 * 1024
_MAGIC: Final = b"PYSWARMB"
_VERSION: Final = 1
_SALT_BYTES: Final = 32
_PREAMBLE: Final = struct.Struct(f">8sI{_SALT_BYTES}s")
_LENGTH_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_FACTS, _PIECE, _END = b"F", b"P", b"E"


class BackupUnreadable(InvalidArgument):
    """The file is no backup, is damaged, or was sealed under another key."""

    remedy = "Use a file that `pyswarm backup` wrote whole, with the key that belongs to it."


def new_key(entropy: Entropy = SYSTEM_ENTROPY) -> str:
    """Return a fresh key as text."""
    return KEY_PREFIX + base64.b32encode(entropy.bytes(KEY_BYTES)).decode().rstrip("=").lower()


def parse_key(text: str) -> bytes:
    """Return the bytes of a key. Raises InvalidArgument."""
    word = text.strip()
    encoded = word.removeprefix(KEY_PREFIX).upper()
    try:
        key = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except ValueError:
        key = b""
    if not word.startswith(KEY_PREFIX) or len(key) != KEY_BYTES:
        raise InvalidArgument("this is not the key of a backup", remedy=f"A key begins with {KEY_PREFIX}.")
    return key


class BackupWriter:
    """Writes one backup aside; it gets its name in `finish`, whole and synced, or is removed in `abort`."""

    def __init__(self, path: Path, key: bytes, facts: BackupFacts, entropy: Entropy = SYSTEM_ENTROPY) -> None:
        """Raises OSError."""
        self._path = path
        self._aside = path.with_name(path.name + ".part")
        salt = entropy.bytes(_SALT_BYTES)
        self._preamble = _PREAMBLE.pack(_MAGIC, _VERSION, salt)
        self._aead = _aead(key, salt)
        self._number = 0
        descriptor = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        self._file.write(self._preamble)
        self._add(_FACTS + msgspec.msgpack.encode(facts))

    def add(self, piece: bytes) -> None:
        """Write a piece of the store. Raises OSError."""
        self._add(_PIECE + piece)

    def finish(self) -> int:
        """Bring the backup to the disk and give it its name; return its size in bytes. Raises OSError."""
        self._add(_END + self._number.to_bytes(8, "big"))
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._aside.rename(self._path)
        sync_directory(self._path.parent)
        return size

    def abort(self) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)

    def _add(self, frame: bytes) -> None:
        assert len(frame) <= FRAME_BYTES_MAX, "pieces are small"
        sealed = self._aead.encrypt(self._number.to_bytes(_NONCE_BYTES, "big"), frame, self._preamble)
        self._file.write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)
        self._number += 1


class BackupReader:
    """Reads one backup; use it in a `with`."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Raises OSError, and BackupUnreadable when the file is no backup or the key is not its own."""
        self._path = path
        self._file: BinaryIO = path.open("rb")
        try:
            self._preamble = self._file.read(_PREAMBLE.size)
            if len(self._preamble) < _PREAMBLE.size or not self._preamble.startswith(_MAGIC):
                raise BackupUnreadable(f"{path} is not a backup")
            _, version, salt = _PREAMBLE.unpack(self._preamble)
            if version != _VERSION:
                raise BackupUnreadable(f"{path} is a backup of format {version}, this version reads {_VERSION}")
            self._aead = _aead(key, salt)
            self._number = 0
            self.facts = self._read_facts()
        except BaseException:
            self._file.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        """Yield the store's pieces. Raises BackupUnreadable at the first that is wrong, and when the end is missing."""
        while not (frame := self._next()).startswith(_END):
            yield frame[1:]
        if frame[1:] != (self._number - 1).to_bytes(8, "big"):
            raise BackupUnreadable(f"{self._path}: its end does not count its pieces")

    def __enter__(self) -> "BackupReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read_facts(self) -> BackupFacts:
        try:
            frame = self._next()
            return msgspec.msgpack.decode(frame[1:], type=BackupFacts)
        except (BackupUnreadable, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise BackupUnreadable(f"{self._path} was sealed under another key, or is damaged") from error

    def _next(self) -> bytes:
        length = int.from_bytes(self._file.read(_LENGTH_BYTES), "big")
        if not 0 < length <= 2 * FRAME_BYTES_MAX:
            raise BackupUnreadable(f"{self._path} is cut short")
        sealed = self._file.read(length)
        if len(sealed) < length:
            raise BackupUnreadable(f"{self._path} is cut short")
        try:
            frame = self._aead.decrypt(self._number.to_bytes(_NONCE_BYTES, "big"), sealed, self._preamble)
        except InvalidTag as error:
            raise BackupUnreadable(f"{self._path} is damaged at its frame {self._number}") from error
        self._number += 1
        return frame


def _aead(key: bytes, salt: bytes) -> AESGCM:
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(b"pyswarm backup" + salt)
    return AESGCM(mac.finalize())
