"""The options about where the output of tasks goes: `--log-driver` and `--log-opt`, as Docker's."""

from collections.abc import Mapping
from typing import Any

from pyswarm.manager.cli.flags.values import parse_labels
from pyswarm.proto.model.spec import LogDriver


def with_log_driver(present: LogDriver, flags: Mapping[str, Any]) -> LogDriver:
    """Return the driver that the flags name, with the options they give; options alone are for the present driver."""
    name, options = flags.get("log_driver"), flags.get("log_opt", ())
    if name is None and not options:
        return present
    return LogDriver(name=present.name if name is None else name, options=parse_labels(options))
