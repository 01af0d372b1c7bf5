"""`--since`: a moment, or a length of time before now (pure)."""

from datetime import UTC, datetime

from pyswarm.proto.codec.units import parse_duration
from pyswarm.proto.errors import InvalidArgument


def parse_since(text: str, *, now: float) -> float:
    """Return seconds since the epoch; 0 when nothing is given. A moment without a zone is in UTC."""
    if not text:
        return 0.0
    try:
        return float(text) if text.replace(".", "", 1).isdigit() and text.isascii() else now - parse_duration(text)
    except InvalidArgument:
        pass  # not a length, so perhaps a moment
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(
            f'"{text}" is neither a moment nor a length of time', remedy="Write 2026-01-02T13:23:37Z or 42m."
        ) from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
