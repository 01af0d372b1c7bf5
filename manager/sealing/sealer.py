"""Derive the keys that seal a manager's files from its data key (DEK).

Every file has a random salt and its own key, so that no nonce is ever used twice under one key, whatever a
crash or a restored backup did to counters. Frames are AES-256-GCM; where they lie is authenticated with them
(the caller's header is the additional data), so frames cannot be moved, swapped between files or cut out of
the middle. Where the data keys themselves are kept: keys.py.

The data key can be exchanged while the manager runs. Files are sealed under the newest; a file's salt begins with the
fingerprint of the key that it was made under, and an older key is kept for as long as such a file is there: one that
went sooner would leave a journal that nobody can read (swarm mistake 15).
"""

from collections.abc import Callable, Iterable, Sequence
from weakref import WeakSet

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import Internal

SALT_BYTES = 32
TAG_BYTES = 16
NONCE_BYTES = 12
DATA_KEY_BYTES = 32
FINGERPRINT_BYTES = 4


class SealBroken(Internal):
    """A sealed frame does not open: it was altered, is incomplete, or was sealed under another key."""

    remedy = "Remove this manager's state and let it join again, or restore a backup together with its keys."


class FileSealer:
    """Seals the numbered frames of one file. A number must never be sealed twice for one file."""

    def __init__(self, key: bytes, fingerprint: bytes) -> None:
        self._aead = AESGCM(key)
        self.fingerprint = fingerprint
        """Of the data key that `key` was derived from."""

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
    """Holds the data keys in memory; never shows them. Used from several threads: the keys are exchanged as a whole."""

    def __init__(self, *data_keys: bytes, save: Callable[[Sequence[bytes]], None] = lambda _: None) -> None:
        """`data_keys`, the oldest first; `save` brings them to the disk and returns when they are there."""
        assert data_keys, "a manager has a data key"
        assert all(len(key) == DATA_KEY_BYTES for key in data_keys), "a data key has 256 bits"
        self._keys = data_keys
        self._save = save
        self._by_fingerprint = {_fingerprint(key): key for key in data_keys}
        self._live: WeakSet[FileSealer] = WeakSet()

    @property
    def fingerprint(self) -> bytes:
        """Of the data key that new files are sealed under."""
        return _fingerprint(self._keys[-1])

    @property
    def key_count(self) -> int:
        return len(self._keys)

    def new_salt(self, entropy: Entropy) -> bytes:
        """Return a new file's salt: the newest data key's fingerprint, and what makes the file's own key unique."""
        return self.fingerprint + entropy.bytes(SALT_BYTES - FINGERPRINT_BYTES)

    def for_file(self, kind: bytes, salt: bytes) -> FileSealer:
        """Return the sealer of the file with this `salt`; `kind` keeps files of different use apart.

        Raises:
            SealBroken: it was sealed under a key that is not there.
        """
        assert len(salt) == SALT_BYTES, "a file's salt has 256 bits"
        fingerprint = salt[:FINGERPRINT_BYTES]
        data_key = self._by_fingerprint.get(fingerprint)
        if data_key is None:
            raise SealBroken(f"sealed under the data key {fingerprint.hex()}, which this manager does not have")
        found = FileSealer(_mac(data_key, len(kind).to_bytes(1, "big") + kind + salt), fingerprint)
        self._live.add(found)
        return found

    def rotate(self, entropy: Entropy) -> None:
        """Seal new files under a new data key. Blocking: it is on the disk before anything is sealed under it."""
        self._exchange((*self._keys, entropy.bytes(DATA_KEY_BYTES)))

    def forget_unused(self, salts: Iterable[bytes]) -> None:
        """Forget the older keys that none of the files with these salts, and no file being written or read, needs.

        Blocking. An older key that is on the disk still is harmless; one that is needed and gone is not.
        """
        needed = {salt[:FINGERPRINT_BYTES] for salt in salts} | {sealer.fingerprint for sealer in self._live}
        older = [key for key in self._keys[:-1] if _fingerprint(key) in needed]
        if len(older) < len(self._keys) - 1:
            self._exchange((*older, self._keys[-1]))

    def _exchange(self, keys: tuple[bytes, ...]) -> None:
        self._save(keys)
        self._by_fingerprint = {_fingerprint(key): key for key in keys}
        self._keys = keys

    def __repr__(self) -> str:
        return "Sealer(…)"


def _fingerprint(data_key: bytes) -> bytes:
    return _mac(data_key, b"fingerprint")[:FINGERPRINT_BYTES]


def _mac(data_key: bytes, message: bytes) -> bytes:
    mac = hmac.HMAC(data_key, hashes.SHA256())
    mac.update(message)
    return mac.finalize()
