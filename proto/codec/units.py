"""Lengths of time, sizes and CPU shares as people write them, to numbers and back (pure).

Shared by the stack file and the command line, so that `1m30s` and `50M` mean the same in both.
Errors are InvalidArgument with the accepted form as remedy; the caller says where the text stood.
"""

import re
from decimal import Decimal, InvalidOperation

from pyswarm.proto.errors import InvalidArgument

_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION_MAX_SECONDS = Decimal(2**63) / 10**9
_SIZE_MAX_BYTES = 2**63 - 1
NANO_CPUS_PER_CPU = 10**9


def parse_duration(text: str) -> float:
    """Return the seconds in text like `1m30s`, `500ms` or `0`. Negative lengths are refused."""
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    parts = _DURATION.findall(stripped)
    if not parts or "".join(parts) != stripped:
        raise InvalidArgument(
            f'"{text}" is not a length of time', remedy="Write numbers with units h, m, s, ms, us or ns: 1m30s."
        )
    total = Decimal(0)
    for part in parts:
        unit = part.lstrip("0123456789.")
        total += Decimal(part[: -len(unit)]) * _SECONDS[unit]
    if total > _DURATION_MAX_SECONDS:
        raise InvalidArgument(f'"{text}" is longer than 292 years', remedy="Write a shorter length of time.")
    return float(total)


def format_duration(seconds: float) -> str:
    """Return seconds as text that `parse_duration` reads back: 90 → `1m30s`, 0.5 → `500ms`."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        for unit, size in (("ms", 10**6), ("us", 10**3), ("ns", 1)):
            if nanoseconds >= size:
                return f"{_plain(Decimal(nanoseconds) / size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds_text = f"{_plain(Decimal(rest) / 10**9)}s" if rest or not (hours or minutes) else ""
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if minutes else ''}{seconds_text}"


def parse_bytes(text: str) -> int:
    """Return the bytes in text like `50M`, `1.5g`, `64KiB` or `4096`; units are powers of 1024, as Docker's are."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f'"{text}" is not a size', remedy="Write bytes with a unit b, k, m, g or t: 512m.")
    size = int(Decimal(match[1]) * 1024 ** _POWERS[match[2].lower()])
    if size > _SIZE_MAX_BYTES:
        raise InvalidArgument(f'"{text}" is more than 8 EiB', remedy="Write a smaller size.")
    return size


def format_bytes(size: int) -> str:
    """Return a size in binary units, as Docker shows limits: 52428800 → `50MiB`."""
    value = Decimal(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{_significant(value)}{unit}"
        value /= 1024
    return f"{_significant(value)}PiB"


def parse_nano_cpus(text: str) -> int:
    """Return billionths of a CPU in text like `0.5` or `2`; finer than a billionth is refused."""
    try:
        cpus = Decimal(text.strip())
    except InvalidOperation:
        cpus = Decimal(-1)
    if not text.isascii() or not cpus.is_finite() or cpus < 0 or cpus > 2**33:
        raise InvalidArgument(f'"{text}" is not a number of CPUs', remedy="Write a decimal number: 0.5, 2.")
    nano = cpus * NANO_CPUS_PER_CPU
    if nano != nano.to_integral_value():
        raise InvalidArgument(f'"{text}" is finer than a billionth of a CPU', remedy="Write at most nine decimals.")
    return int(nano)


def format_nano_cpus(nano_cpus: int) -> str:
    return _plain(Decimal(nano_cpus) / NANO_CPUS_PER_CPU)


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _significant(value: Decimal) -> str:
    return f"{float(value):.4g}"
