"""How the command line fails: `Error: <cause>` and the remedy on standard error, and an exit status.

1 for what the cluster or the machine refused, 125 for flags that do not exist or have bad values (as
Docker's), 130 for Ctrl-C.
"""

import click

from pyswarm.proto.errors import SwarmError

EXIT_FAILURE = 1
EXIT_BAD_FLAG = 125
EXIT_INTERRUPTED = 130


def explain(error: Exception) -> tuple[str, int]:
    """Return (text for standard error, exit status) for an error that reached the edge."""
    if isinstance(error, click.UsageError):
        is_flag = isinstance(error, click.NoSuchOption | click.BadOptionUsage | click.BadParameter)
        is_missing = isinstance(error, click.MissingParameter)
        status = EXIT_BAD_FLAG if is_flag and not is_missing else EXIT_FAILURE
        path = error.ctx.command_path if error.ctx is not None else "pyswarm"
        text = error.format_message()
        return f"Error: {text}" if "\n" in text else f"Error: {text}\nSee `{path} --help`.", status
    if isinstance(error, click.ClickException):
        return f"Error: {error.format_message()}", error.exit_code
    if isinstance(error, SwarmError):
        return f"Error: {error}", EXIT_FAILURE
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"Error: {place}{error.strerror or error}", EXIT_FAILURE
    raise error
