"""Derive the keys that seal a manager's files from its one data key (DEK).

Every file has a random salt and its own key, so that no nonce is ever used twice under one key, whatever a
crash or a restored backup did to counters. Frames are AES-256-GCM; where they lie is authenticated with them
(the caller's header is the additional data), so frames cannot be moved, swapped between files or cut out of
the middle. Where the data key itself is kept: keys.py.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyswarm.proto.errors import Internal

SALT_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12


class SealBroken(Internal):
    """A sealed frame does not open: it was altered, is incomplete, or was sealed under another key."""

    remedy = "Remove this manager's state and let it join again, or restore a backup together with its keys."


class FileSealer:
    """Seals the numbered frames of one file. A number must never be sealed twice for one file."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, number: int, plain: bytes, header: bytes) -> bytes:
        """Return `plain` sealed as frame `number`: 16 bytes longer. `header` is authenticated, not contained."""
        return self._aead.encrypt(number.to_bytes(NONCE_BYTES, "big"), plain, header)

    def open(self, number: int, sealed: bytes, header: bytes) -> bytes:
        """Return the plain bytes of frame `number`.

        Raises:
            SealBroken: these are not the bytes that were sealed under this number and header.
        """
        try:
            return self._aead.decrypt(number.to_bytes(NONCE_BYTES, "big"), sealed, header)
        except InvalidTag as error:
            raise SealBroken(f"sealed frame {number} does not open") from error


class Sealer:
    """Holds the data key in memory; never shows it."""

    def __init__(self, data_key: bytes) -> None:
        assert len(data_key) == 32, "a data key has 256 bits"
        self._data_key = data_key

    def for_file(self, kind: bytes, salt: bytes) -> FileSealer:
        """Return the sealer of the file with this random `salt`; `kind` keeps files of different use apart."""
        assert len(salt) == SALT_BYTES, "a file's salt has 256 bits"
        mac = hmac.HMAC(self._data_key, hashes.SHA256())
        mac.update(len(kind).to_bytes(1, "big") + kind + salt)
        return FileSealer(mac.finalize())

    def __repr__(self) -> str:
        return "Sealer(…)"
