"""Judge secrets, configs and the references to them (pure). Limits are Swarm's (api/validation/secrets.go)."""

import posixpath
import re
from collections.abc import Iterator
from typing import Final

from pyswarm.proto.codec.problems import Problem, raise_if_any
from pyswarm.proto.codec.signals import is_signal
from pyswarm.proto.model.spec import ConfigReference, ConfigSpec, FileTarget, SecretReference, SecretSpec

SECRET_BYTES_MAX: Final = 500 * 1024 - 1
CONFIG_BYTES_MAX: Final = 1000 * 1024 - 1
_NAME = re.compile(r"[a-zA-Z0-9]+(?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?")
_NAME_CHARACTERS_MAX: Final = 64


def validate_payload(spec: SecretSpec | ConfigSpec) -> None:
    """Raises InvalidArgument naming the first thing that is wrong with a new secret or config."""
    kind = "secret" if isinstance(spec, SecretSpec) else "config"
    raise_if_any(f"{kind} {spec.name or '(without a name)'}", _problems(kind, spec))


def _problems(kind: str, spec: SecretSpec | ConfigSpec) -> Iterator[Problem]:
    if not _NAME.fullmatch(spec.name) or len(spec.name) > _NAME_CHARACTERS_MAX:
        yield Problem(
            f"{spec.name!r} is not the name of a {kind}",
            "Use up to 64 letters, digits, and -_. between them.",
        )
    most = SECRET_BYTES_MAX if isinstance(spec, SecretSpec) else CONFIG_BYTES_MAX
    if len(spec.data) > most:
        yield Problem(
            f"it is {len(spec.data):,} bytes long", f"A {kind} has at most {most:,} bytes: put large data in an image."
        )
    if isinstance(spec, SecretSpec) and not spec.data:
        yield Problem("it is empty", "Give it a content: a file, or - for standard input.")


def reference_problems(reference: SecretReference | ConfigReference) -> Iterator[Problem]:
    """Yield what is wrong with a container's reference, apart from whether what it names exists."""
    if isinstance(reference, SecretReference):
        kind, name, id = "secret", reference.secret_name, reference.secret_id
    else:
        kind, name, id = "config", reference.config_name, reference.config_id
    if not name and not id:
        yield Problem(f"a {kind} is used that has no name", f"Name the {kind}.")
    if reference.file.in_place and posixpath.dirname(reference.path) == "/":
        yield Problem(
            f"{kind} {name or id} is to be replaced in place at {reference.path}, in the container's root",
            "Give it a target in a directory that holds only secrets and configs: target=/etc/site/site.conf.",
        )
    yield from _file_problems(f"{kind} {name or id}", reference.file)


def _file_problems(what: str, file: FileTarget) -> Iterator[Problem]:
    if ".." in file.name.split("/") or file.name.endswith("/") or "\0" in file.name:
        yield Problem(f"{what} has the target {file.name!r}", "Give a file name, or an absolute path without ..")
    for which, number in (("uid", file.uid), ("gid", file.gid)):
        if not (number.isascii() and number.isdigit() and int(number) < 2**32 - 1):
            yield Problem(f"{what} has the {which} {number!r}", "Give a number: names of users are the image's own.")
    if file.signal and not file.in_place:
        yield Problem(
            f"{what} has the signal {file.signal}, and new versions are rolled out by replacing tasks",
            "Have it replaced in place, or leave out the signal.",
        )
    if file.signal and not is_signal(file.signal):
        yield Problem(
            f"{what} has the unknown signal {file.signal!r}", "Name a signal, such as SIGHUP, or give its number."
        )
    if not 0 <= file.mode <= 0o7777:
        yield Problem(f"{what} has the mode {file.mode:o}", "Give an octal mode such as 0444.")
