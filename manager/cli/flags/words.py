"""Split what one flag holds into words, as a shell would (pure)."""

import shlex

from pyswarm.proto.errors import InvalidArgument


def words_of(flag: str, text: str) -> tuple[str, ...]:
    """Return the words of `text`. Raises InvalidArgument naming the flag."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidArgument(f"{flag} {text!r}: {str(error).lower()}", remedy="Close the quotation.") from error
