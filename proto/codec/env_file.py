"""Files of environment variables, as `--env-file` and `env_file:` name them (pure)."""

from pyswarm.proto.errors import InvalidArgument


def parse_env_file(name: str, text: str) -> list[str]:
    """Return the entries of an env file: one a line, `#` starts a comment, nothing is unquoted.

    Raises InvalidArgument, which names the file and the line.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        variable = stripped.partition("=")[0]
        if not variable or any(c.isspace() for c in variable):
            raise InvalidArgument(f'{name}:{number}: "{variable}" is not a variable', remedy="Write NAME=VALUE.")
        entries.append(stripped)
    return entries
