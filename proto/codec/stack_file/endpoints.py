"""A service's `ports` and `volumes`, short and long spellings, to the model.

When several files are merged, a later file's entry for the same published port or the same mount target
replaces the earlier one. Two such entries in one file are a mistake and are left for validation to refuse.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from pyswarm.proto.codec.ports import PORT_MAX, check_protocol, parse_short_port
from pyswarm.proto.codec.stack_file.document import Node, Place, Scalar, Table, failure
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.vocabulary import PORT, TMPFS, VOLUME
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import Mount, PortConfig
from pyswarm.proto.model.states import MountType, PublishMode

T = TypeVar("T")

_PUBLISH_MODES = {"ingress": PublishMode.INGRESS, "host": PublishMode.HOST}
_MOUNT_TYPES = {"bind": MountType.BIND, "tmpfs": MountType.TMPFS}
_NO_NAMED_VOLUMES = "Named volumes are not available yet: mount a directory of the node (/path:/path) or a tmpfs."


def ports_of(service: Section, warnings: list[str]) -> tuple[PortConfig, ...]:
    """Return the service's published ports. Raises InvalidStackFile."""
    found = [(node, port) for node in service.items("ports") for port in _ports(service, node, warnings)]
    return _latest(found, lambda p: (p.published_port, p.protocol) if p.published_port else None)


def mounts_of(service: Section, warnings: list[str]) -> tuple[Mount, ...]:
    """Return the service's mounts. Raises InvalidStackFile."""
    found = [(node, _mount(service, node, warnings)) for node in service.items("volumes")]
    return _latest(found, lambda mount: mount.target)


def _latest(found: Sequence[tuple[Node, T]], identity: Callable[[T], Hashable]) -> tuple[T, ...]:
    """Drop what a later file replaces: an entry with the same identity that stands in another file."""
    kept = []
    for index, (node, value) in enumerate(found):
        key = identity(value)
        if key is None or not any(
            identity(other) == key and later.place.file != node.place.file for later, other in found[index + 1 :]
        ):
            kept.append(value)
    return tuple(kept)


def _ports(service: Section, node: Node, warnings: list[str]) -> tuple[PortConfig, ...]:
    if isinstance(node, Table):
        return (_long_port(Section(node, service.name("ports")), warnings),)
    text = service.text_of("ports", node)
    try:
        return parse_short_port(text)
    except InvalidArgument as error:
        raise failure(node.place, f"{service.name('ports')}: {error.message}", error.remedy) from error


def _long_port(port: Section, warnings: list[str]) -> PortConfig:
    port.check_keys(PORT, warnings)
    try:
        protocol = check_protocol(port.text("protocol", "tcp"))
    except InvalidArgument as error:
        raise failure(port.place, f"{port.name('protocol')}: {error.message}", error.remedy) from error
    return PortConfig(
        name=port.text("name"),
        protocol=protocol,
        target_port=_port_number(port, "target", least=1),
        published_port=_port_number(port, "published", least=0),
        publish_mode=port.choice("mode", _PUBLISH_MODES, PublishMode.INGRESS),
    )


def _port_number(port: Section, key: str, *, least: int) -> int:
    node = port.get(key)
    if node is None and least:
        raise failure(port.place, f"{port.path} has no {key}", "Write target: the port inside the container.")
    number = port.whole(key, least=least)
    if number > PORT_MAX and node is not None:
        raise port.wrong(key, node, f"at most {PORT_MAX}")
    return number


def _mount(service: Section, node: Node, warnings: list[str]) -> Mount:
    if isinstance(node, Table):
        return _long_mount(Section(node, service.name("volumes")), warnings)
    return _short_mount(service, node)


def _long_mount(volume: Section, warnings: list[str]) -> Mount:
    kind = volume.get("type")
    if isinstance(kind, Scalar) and kind.text in VOLUME.refused and kind.text != "bind":
        raise failure(kind.place, f"{volume.name('type')} {kind.text} is not supported", VOLUME.refused[kind.text])
    volume.check_keys(VOLUME, warnings)
    if kind is None:
        raise failure(volume.place, f"{volume.path} has no type", "Write type: bind or type: tmpfs.")
    mount_type = volume.choice("type", _MOUNT_TYPES, MountType.BIND)
    source, target = volume.text("source"), volume.text("target")
    source_node = volume.get("source")
    source_place = volume.place if source_node is None else source_node.place
    if not target.startswith("/"):
        raise failure(volume.place, f"{volume.path} needs an absolute target", "Write target: /path/in/container.")
    tmpfs = volume.section("tmpfs")
    tmpfs.check_keys(TMPFS, warnings)
    if mount_type is MountType.TMPFS:
        if source:
            raise failure(volume.place, f"{volume.path}: a tmpfs has no source", "Remove source.")
    else:
        if tmpfs.table.entries:
            raise failure(tmpfs.place, f"{tmpfs.path} is for type: tmpfs only", "Remove it.")
        _check_source(source_place, volume.path, source)
    return Mount(
        type=mount_type,
        source=source,
        target=target,
        read_only=volume.flag("read_only"),
        tmpfs_size_bytes=tmpfs.size("size"),
    )


def _short_mount(service: Section, node: Node) -> Mount:
    text = service.text_of("volumes", node)
    path = service.name("volumes")
    parts = text.split(":")
    if len(parts) == 1:
        raise failure(node.place, f'{path}: "{text}" is an anonymous volume', _NO_NAMED_VOLUMES)
    if len(parts) > 3:
        raise failure(node.place, f'{path}: "{text}" has too many colons', "Write SOURCE:TARGET[:ro].")
    source, target = parts[0], parts[1]
    _check_source(node.place, path, source)
    if not target.startswith("/"):
        raise failure(node.place, f'{path}: target "{target}" is not absolute', "Write SOURCE:/path/in/container.")
    options = parts[2].split(",") if len(parts) == 3 else []
    for option in options:
        if option not in ("ro", "rw"):
            raise failure(node.place, f'{path}: option "{option}" is not supported', "Use ro or rw.")
    return Mount(type=MountType.BIND, source=source, target=target, read_only="ro" in options)


def _check_source(place: Place, path: str, source: str) -> None:
    if source.startswith("/"):
        return
    if source.startswith((".", "~")):
        raise failure(
            place, f'{path}: "{source}" is a relative path', "Write an absolute path that exists on every node."
        )
    raise failure(
        place, f'{path}: "{source}" is a named volume' if source else f"{path} has no source", _NO_NAMED_VOLUMES
    )
