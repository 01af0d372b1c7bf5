"""`node.json`: what this machine is to a cluster. Written by pyswarmd alone, whole, and synced before it counts."""

import json
import os
from pathlib import Path
from typing import Any

from pyswarm.proto.errors import FailedPrecondition

Record = dict[str, Any]


def read(path: Path) -> Record | None:
    """Return the record, None when this machine belongs to no cluster. Raises FailedPrecondition when it is damaged."""
    try:
        stored: Record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise FailedPrecondition(
            f"{path} is damaged: {error}", remedy="Run `pyswarm leave --force` and join the cluster again."
        ) from error
    return stored


def write(path: Path, record: Record) -> None:
    """Replace the record: written aside, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
