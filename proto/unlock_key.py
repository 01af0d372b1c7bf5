"""Unlock keys: `SWMKEY-1-<base64>` (pure; format of SwarmKit manager/encryption, base64 without padding).

The 32 bytes are the key-encryption key (KEK) that wraps what opens a manager's state. Standard library only: pyswarmd
hands keys on as text.
"""

import base64

from pyswarm.proto.errors import InvalidArgument

UNLOCK_KEY_BYTES = 32
_PREFIX = "SWMKEY-"
_PREFIX_1 = "SWMKEY-1-"

LOCKED_EXIT_STATUS = 77
"""How a manager daemon ends that cannot open its state (`EX_NOPERM`): starting it again without a key is no use."""


def format_unlock_key(key: bytes) -> str:
    if len(key) != UNLOCK_KEY_BYTES:
        raise ValueError(f"an unlock key has {UNLOCK_KEY_BYTES} bytes, not {len(key)}")
    return _PREFIX_1 + base64.b64encode(key).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """Return the key's bytes. Raises InvalidArgument saying what is wrong with the text, without repeating it."""
    stripped = text.strip()
    if not stripped.startswith(_PREFIX):
        raise InvalidArgument("this is not an unlock key: it does not begin with SWMKEY-", remedy=_REMEDY)
    if not stripped.startswith(_PREFIX_1):
        raise InvalidArgument("the unlock key is of a version this build does not know", remedy=_REMEDY)
    body = stripped.removeprefix(_PREFIX_1)
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) != UNLOCK_KEY_BYTES:
        raise InvalidArgument("the unlock key is damaged: it was probably not copied whole", remedy=_REMEDY)
    return key


_REMEDY = "`pyswarm unlock-key` on a manager that is not locked shows the key."
