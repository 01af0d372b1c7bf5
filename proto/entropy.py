"""The one door to randomness: ids, secrets, jitter. Tests hand in a seeded source."""

import random
import secrets
from typing import Protocol

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 25
"""Characters of an object id: base 36, about 129 bits (SwarmKit identity/randomid.go)."""


class Entropy(Protocol):
    def new_id(self) -> str:
        """Return a fresh object id: 25 characters of base 36."""

    def bytes(self, count: int) -> bytes:
        """Return `count` bytes fit for keys."""

    def uniform(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`, for jitter."""


def encode_base36(number: int, length: int) -> str:
    """Return `number` in base 36, left-padded with zeros to `length` characters."""
    digits = []
    while number:
        number, rest = divmod(number, 36)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits)).rjust(length, "0")


class SystemEntropy:
    def new_id(self) -> str:
        # 128 bits always fit into 25 base-36 digits.
        return encode_base36(secrets.randbits(128), ID_LENGTH)

    def bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    def uniform(self, low: float, high: float) -> float:
        return random.SystemRandom().uniform(low, high)


class SeededEntropy:
    """Repeatable, for tests and simulation; never for keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def new_id(self) -> str:
        return encode_base36(self._random.getrandbits(128), ID_LENGTH)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


SYSTEM_ENTROPY: Entropy = SystemEntropy()
