"""What both ends of a call must agree on."""

from typing import Final

MESSAGE_MAX_BYTES: Final = 16 * 1024 * 1024
