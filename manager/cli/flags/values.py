"""What the flags of `service create` and `service update` hold, still as text: labels, ports, mounts (pure)."""

import csv
from collections.abc import Iterable, Mapping, Sequence

from pyswarm.proto.codec.ports import check_protocol, parse_short_port
from pyswarm.proto.codec.units import parse_bytes
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.spec import ConfigReference, FileTarget, Mount, PortConfig, SecretReference
from pyswarm.proto.model.states import MountType, PublishMode

_PUBLISH_MODES = {"ingress": PublishMode.INGRESS, "host": PublishMode.HOST}
_MOUNT_TYPES = {"bind": MountType.BIND, "tmpfs": MountType.TMPFS}


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return `name=value` texts as a mapping; a name alone has an empty value."""
    labels = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name:
            raise InvalidArgument(f'"{text}" is not a label', remedy="Write NAME=VALUE.")
        labels[name] = value
    return labels


def parse_env(texts: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return NAME=value entries; NAME alone takes its value from `environment` and is left out where it has none."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidArgument(f'"{text}" is not a variable', remedy="Write NAME=VALUE, or NAME to pass it on.")
        if equals:
            values[name] = value
        elif name in environment:
            values[name] = environment[name]
    return tuple(f"{name}={value}" for name, value in values.items())


def parse_publish(text: str) -> tuple[PortConfig, ...]:
    """Return the ports in `8080:80/tcp`, or in `published=8080,target=80,protocol=tcp,mode=host`."""
    if "=" not in text:
        return parse_short_port(text)
    fields = _fields(text, "port", {"published", "target", "protocol", "mode", "name"}, flags=frozenset())
    if "target" not in fields:
        raise InvalidArgument(f'port "{text}" has no target', remedy="Write target=PORT[,published=PORT].")
    mode = fields.get("mode", "ingress")
    if mode not in _PUBLISH_MODES:
        raise InvalidArgument(f'port mode "{mode}" is unknown', remedy="Use mode=ingress or mode=host.")
    ranges = f"{fields['published']}:{fields['target']}" if fields.get("published", "0") != "0" else fields["target"]
    protocol = check_protocol(fields.get("protocol", "tcp"))
    return tuple(
        PortConfig(fields.get("name", ""), protocol, port.target_port, port.published_port, _PUBLISH_MODES[mode])
        for port in parse_short_port(ranges)
    )


def parse_mount(text: str) -> Mount:
    """Return the mount in `type=bind,source=/a,target=/b,readonly` or `type=tmpfs,target=/t,tmpfs-size=64m`."""
    fields = _fields(
        text,
        "mount",
        {"type", "source", "src", "target", "destination", "dst", "readonly", "ro", "tmpfs-size"},
        flags=frozenset({"readonly", "ro"}),
    )
    kind = fields.get("type", "volume")
    if kind not in _MOUNT_TYPES:
        raise InvalidArgument(
            f'mount type "{kind}" is not supported yet',
            remedy="Use type=bind with a directory of the node, or type=tmpfs.",
        )
    read_only = fields.get("readonly", fields.get("ro", "false"))
    if read_only not in ("true", "1", "false", "0"):
        raise InvalidArgument(f'mount "{text}": readonly is neither true nor false', remedy="Write readonly.")
    return Mount(
        type=_MOUNT_TYPES[kind],
        source=fields.get("source", fields.get("src", "")),
        target=fields.get("target", fields.get("destination", fields.get("dst", ""))),
        read_only=read_only in ("true", "1"),
        tmpfs_size_bytes=parse_bytes(fields["tmpfs-size"]) if "tmpfs-size" in fields else 0,
    )


def parse_file_use(text: str, what: str) -> tuple[str, FileTarget]:
    """Return (name, where it appears) for `NAME` or `source=NAME,target=PATH,uid=0,gid=0,mode=0440`.

    Besides Docker's keys, `propagation=in-place` (else rolling) and `signal=SIGHUP`: see FileTarget.
    """
    if "=" not in text and "," not in text:
        return text, FileTarget(name=text)
    known = {"source", "src", "target", "uid", "gid", "mode", "propagation", "signal"}
    fields = _fields(text, what, known, flags=frozenset())
    name = fields.get("source", fields.get("src", ""))
    if not name:
        raise InvalidArgument(f'{what} "{text}" has no source', remedy=f"Write source=NAME of the {what}.")
    try:
        mode = int(fields.get("mode", "0444").lower().removeprefix("0o"), 8)
    except ValueError as error:
        raise InvalidArgument(f'{what} "{text}": the mode is not octal', remedy="Write mode=0440.") from error
    propagation = fields.get("propagation", "rolling")
    if propagation not in ("rolling", "in-place"):
        raise InvalidArgument(
            f'{what} "{text}": the propagation "{propagation}" is unknown', remedy="Write rolling or in-place."
        )
    default = FileTarget()
    uid, gid = fields.get("uid", default.uid), fields.get("gid", default.gid)
    in_place, signal = propagation == "in-place", fields.get("signal", "")
    return name, FileTarget(fields.get("target", name), uid, gid, mode, in_place, signal)


def parse_secret(text: str) -> SecretReference:
    name, file = parse_file_use(text, "secret")
    return SecretReference(secret_name=name, file=file)


def parse_config(text: str) -> ConfigReference:
    name, file = parse_file_use(text, "config")
    return ConfigReference(config_name=name, file=file)


def parse_preference(text: str) -> str:
    """Return the label key in `spread=node.labels.zone`."""
    strategy, equals, key = text.partition("=")
    if strategy != "spread" or not equals or not key:
        raise InvalidArgument(f'placement preference "{text}" is unknown', remedy="Write spread=node.labels.NAME.")
    return key


def parse_scale(texts: Sequence[str]) -> dict[str, int]:
    """Return {service: replicas} for `SERVICE=REPLICAS` texts."""
    wanted = {}
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not equals or not name:
            raise InvalidArgument(f'invalid scale specifier "{text}"', remedy="Write SERVICE=REPLICAS.")
        if not (count.isascii() and count.isdigit() and len(count) <= 9):
            raise InvalidArgument(f'invalid replicas value "{count}" of {name}', remedy="Write SERVICE=REPLICAS.")
        wanted[name] = int(count)
    return wanted


def _fields(text: str, what: str, known: set[str], *, flags: frozenset[str]) -> dict[str, str]:
    """Return `key=value,…` as a mapping; a key in `flags` may stand alone."""
    try:
        parts = next(csv.reader([text]), [])
    except csv.Error as error:
        raise InvalidArgument(f'{what} "{text}": {error}', remedy="Write KEY=VALUE,KEY=VALUE.") from error
    fields = {}
    for part in parts:
        key, equals, value = part.strip().partition("=")
        key = key.lower()
        if key not in known or not (equals or key in flags):
            raise InvalidArgument(f'{what} "{text}": "{part}" is unknown', remedy=f"Known: {', '.join(sorted(known))}.")
        fields[key] = value if equals else "true"
    return fields
