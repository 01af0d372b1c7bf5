"""What the command line tells: on stderr, and in a log in the form that containerd and conmon read."""

import datetime
import json
import sys
from pathlib import Path

from pyswarm.proto.clock import SYSTEM_CLOCK


class Messages:
    def __init__(self, log: str, log_format: str, *, debug: bool) -> None:
        self._log = Path(log) if log else None
        self._format = log_format
        self.debug_wanted = debug

    def error(self, text: str) -> None:
        print(f"pyswarm-oci: {text}", file=sys.stderr)
        self._write("error", text)

    def warn(self, text: str) -> None:
        print(f"pyswarm-oci: warning: {text}", file=sys.stderr)
        self._write("warning", text)

    def _write(self, level: str, text: str) -> None:
        if self._log is None:
            return
        now = timestamp()
        if self._format == "json":
            line = json.dumps({"level": level, "msg": text, "time": now})
        else:
            line = f'time="{now}" level={level} msg={json.dumps(text)}'
        with self._log.open("a") as log:
            log.write(f"{line}\n")


def timestamp() -> str:
    """Return the present moment as RFC 3339 has it."""
    return datetime.datetime.fromtimestamp(SYSTEM_CLOCK.now(), datetime.UTC).isoformat().replace("+00:00", "Z")
