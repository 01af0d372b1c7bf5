"""`secrets:` and `configs:`, at the top of the file (what there is) and in a service (what it uses).

Pure: what a secret holds is named here (a file, a variable, the text itself) and read by whoever deploys.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from pyswarm.proto.codec.stack_file.document import Node, Place, Scalar, Table, failure
from pyswarm.proto.codec.stack_file.reader import Section, did_you_mean
from pyswarm.proto.codec.stack_file.vocabulary import PAYLOAD, PAYLOAD_USE
from pyswarm.proto.model.objects import STACK_LABEL
from pyswarm.proto.model.spec import ConfigReference, FileTarget, SecretReference

What = Literal["secrets", "configs"]


class StackData(Struct, frozen=True):
    """A secret or config that the stack brings along. Either `content` is set, or `file` names what to read."""

    name: str
    labels: Mapping[str, str]
    place: Place
    file: str = ""
    content: bytes | None = None


class Known(Struct, frozen=True):
    """The stack's secrets or configs: their names in the cluster by their keys in the file, and those to create."""

    names: Mapping[str, str]
    brought: tuple[StackData, ...]


def known_of(top: Section, what: What, *, stack: str, environment: Mapping[str, str], warnings: list[str]) -> Known:
    """Return what the top of the file says. Raises InvalidStackFile."""
    section = top.section(what)
    names, brought = {}, []
    for key in section.table.entries:
        entry = section.section(key)
        entry.check_keys(PAYLOAD, warnings)
        external, external_name = _external(entry)
        name = entry.text("name") or external_name or (key if external else f"{stack}_{key}")
        names[key] = name
        if external:
            _refuse_sources(entry, "is external")
        else:
            brought.append(_brought(entry, name, stack, environment))
    return Known(names, tuple(brought))


def _external(entry: Section) -> tuple[bool, str]:
    """Return whether it is created elsewhere, and its name there; `external: {name: …}` is the older spelling."""
    if isinstance(entry.get("external"), Table):
        return True, entry.section("external").text("name")
    return entry.flag("external"), ""


def _refuse_sources(entry: Section, why: str) -> None:
    for key in ("file", "content", "environment"):
        if (node := entry.get(key)) is not None:
            raise failure(node.place, f"{entry.path} {why} and has a {key}", f"Remove {key}, or external.")


def _brought(entry: Section, name: str, stack: str, environment: Mapping[str, str]) -> StackData:
    labels = {**{label: value or "" for label, value, _ in entry.pairs("labels")}, STACK_LABEL: stack}
    given = [key for key in ("file", "content", "environment") if entry.get(key) is not None]
    if len(given) != 1:
        said = "nothing to hold" if not given else f"both {given[0]} and {given[1]}"
        raise failure(entry.place, f"{entry.path} has {said}", "Write file: PATH, or external: true.")
    if given == ["file"]:
        return StackData(name, labels, entry.place, file=entry.text("file"))
    if given == ["content"]:
        return StackData(name, labels, entry.place, content=entry.text("content").encode())
    variable = entry.text("environment")
    if variable not in environment:
        raise failure(entry.place, f"{entry.path}: variable {variable} is not set", "Set it, or name a file.")
    return StackData(name, labels, entry.place, content=environment[variable].encode())


def secrets_used(service: Section, known: Known, warnings: list[str]) -> tuple[SecretReference, ...]:
    """Return the secrets a service uses. Raises InvalidStackFile."""
    uses = [_use(service, "secrets", node, known, warnings) for node in service.items("secrets")]
    return tuple(SecretReference(secret_name=name, file=file) for name, file in uses)


def configs_used(service: Section, known: Known, warnings: list[str]) -> tuple[ConfigReference, ...]:
    """Return the configs a service uses. Raises InvalidStackFile."""
    uses = [_use(service, "configs", node, known, warnings) for node in service.items("configs")]
    return tuple(ConfigReference(config_name=name, file=file) for name, file in uses)


def _use(service: Section, what: What, node: Node, known: Known, warnings: list[str]) -> tuple[str, FileTarget]:
    if not isinstance(node, Table):
        key = service.text_of(what, node)
        # The file is called as in the stack file, not as in the cluster.
        return _name(service, what, node, key, known), FileTarget(name=key)
    use = Section(node, service.name(what))
    use.check_keys(PAYLOAD_USE, warnings)
    key = use.text("source")
    if not key:
        raise failure(node.place, f"{use.path} has no source", f"Name one of the file's {what}.")
    default = FileTarget()
    target = FileTarget(
        name=use.text("target") or key,
        uid=use.text("uid", default.uid),
        gid=use.text("gid", default.gid),
        mode=_mode(use, default.mode),
        in_place=use.choice("propagation", {"rolling": False, "in-place": True}, default.in_place),
        signal=use.text("signal"),
    )
    return _name(service, what, node, key, known), target


def _name(service: Section, what: What, node: Node, key: str, known: Known) -> str:
    if key not in known.names:
        raise failure(
            node.place,
            f'{service.name(what)}: "{key}" is not among the {what} of the file',
            did_you_mean(key, known.names) if known.names else f"List it under {what}: at the top of the file.",
        )
    return known.names[key]


def _mode(use: Section, default: int) -> int:
    """Return a file mode. As in YAML 1.1 a leading 0 means octal; Docker's files are written so."""
    node = use.get("mode")
    if node is None:
        return default
    text = node.text.strip() if isinstance(node, Scalar) else ""
    try:
        mode = int(text.lower().removeprefix("0o"), 8) if text.startswith("0") else int(text)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise use.wrong("mode", node, "a file mode such as 0440")
    return mode
