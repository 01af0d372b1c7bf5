"""What differs between two specs, a line for each field, named as in the object model (pure).

Values of environment variables are left out: they may be secret.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pyswarm.proto.model.spec import ServiceSpec


def differences(old: ServiceSpec, new: ServiceSpec) -> tuple[str, ...]:
    """Return `field: old -> new` for each field that differs."""
    return tuple(_differences("", old, new))


def _differences(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, msgspec.Struct) and type(old) is type(new):
        for name in old.__struct_fields__:
            yield from _differences(f"{path}.{name}" if path else name, getattr(old, name), getattr(new, name))
    elif path.endswith(".env"):
        yield from _keys(path, dict(_pairs(old)), dict(_pairs(new)), hides=True)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _keys(path, old, new, hides=False)
    else:
        yield f"{path}: {_told(old)} -> {_told(new)}"


def _keys(path: str, old: Mapping[str, Any], new: Mapping[str, Any], *, hides: bool) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) == new.get(key):
            continue
        what = "added" if key not in old else "removed" if key not in new else "changed"
        values = "" if hides or what != "changed" else f": {_told(old[key])} -> {_told(new[key])}"
        yield f"{path}: {key} {what}{values}"


def _pairs(env: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for entry in env:
        name, _, value = entry.partition("=")
        yield name, value


def _told(value: Any) -> str:
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(_told(item) for item in value)
    if isinstance(value, msgspec.Struct):
        given = {k: v for k, v in msgspec.to_builtins(value).items() if v not in (None, "", 0, False, [], {})}
        return " ".join(f"{key}={item}" for key, item in given.items()) or "default"
    return str(value).lower() if isinstance(value, bool) else getattr(value, "name", str(value)).lower()
