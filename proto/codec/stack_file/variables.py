"""A service's environment: `env_file:` and `environment:`, and what they pass on from outside.

Pure: the files are read by the function that is handed in.
"""

from collections.abc import Callable, Iterator, Mapping

from pyswarm.proto.codec.env_file import parse_env_file
from pyswarm.proto.codec.stack_file.document import Place, Sequence, failure
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.errors import InvalidArgument

ReadText = Callable[[str], str]
"""Return the text of a file that the stack file names; relative paths count from its folder. Raises OSError."""


def variables_of(
    service: Section, environment: Mapping[str, str], read_text: ReadText, warnings: list[str]
) -> tuple[str, ...]:
    """Return NAME=value entries; of a name given twice the last value counts, and `environment:` before any file.

    Raises InvalidStackFile.
    """
    values: dict[str, str] = {}
    for name, given, place in (*_from_files(service, read_text), *service.pairs("environment")):
        value = environment.get(name) if given is None else given
        if value is None:
            warnings.append(f"{place}: variable {name} is not set: leaving it out")
        else:
            values[name] = value
    return tuple(f"{name}={value}" for name, value in values.items())


def _from_files(service: Section, read_text: ReadText) -> Iterator[tuple[str, str | None, Place]]:
    node = service.get("env_file")
    if node is None:
        return
    for named in node.items if isinstance(node, Sequence) else (node,):
        file = service.text_of("env_file", named)
        try:
            entries = parse_env_file(file, read_text(file))
        except InvalidArgument as error:
            raise failure(named.place, f"{service.name('env_file')}: {error.message}", error.remedy) from error
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise failure(
                named.place,
                f"{service.name('env_file')}: cannot read {file}: {why}",
                "Paths count from the stack file's folder.",
            ) from error
        for entry in entries:
            name, equals, value = entry.partition("=")
            yield name, value if equals else None, named.place
