"""The settings of the node's `config.toml` that concern the runtime (docs/reference/seams.md). Other keys are left to
the rooms they belong to."""

import tomllib
from pathlib import Path

import msgspec

from pyswarm.proto.errors import InvalidArgument


class RuntimeConfig(msgspec.Struct, frozen=True, rename="kebab"):
    """`cgroup_parent`: our own cgroup in every hierarchy, relative. `insecure_registries`: plain HTTP allowed.
    `native_executor`: start containers by the C executor where it was built; without, in pure Python."""

    cgroup_parent: str = "pyswarm"
    insecure_registries: tuple[str, ...] = ()
    native_executor: bool = True
    log_level: str = "info"


def read_config(path: Path) -> RuntimeConfig:
    """Return the settings; defaults if there is no file. Raises InvalidArgument naming the file."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), RuntimeConfig)
    except FileNotFoundError:
        return RuntimeConfig()
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}", remedy="Correct the file and start the daemon again.") from error
