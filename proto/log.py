"""The one door to logging: one line per event, `key=value` after the message.

    log = get_logger(__name__)
    log.info("task moved", task=task.id, state="running")

Levels: debug for what a developer needs, info for what changed, warning for what an operator should look
at, error for what broke. Never log a secret, a token or a key.
"""

import logging
import sys
from typing import Any


class StructuredLogger:
    """A logger whose keyword arguments become fields; `bind` adds fields to every line."""

    def __init__(self, logger: logging.Logger, fields: dict[str, Any] | None = None) -> None:
        self._logger = logger
        self._fields = fields or {}

    def bind(self, **fields: Any) -> "StructuredLogger":
        return StructuredLogger(self._logger, {**self._fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log an error with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def _write(self, level: int, event: str, fields: dict[str, Any], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            text = " ".join([event, *(f"{k}={_quoted(v)}" for k, v in {**self._fields, **fields}.items())])
            self._logger.log(level, "%s", text, exc_info=exc_info)


def _quoted(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


def get_logger(name: str) -> StructuredLogger:
    return StructuredLogger(logging.getLogger(name))


def configure(*, component: str, level: str = "INFO") -> None:
    """Send every logger's lines to standard error, which the supervisor writes to the component's log file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(
            f"%(asctime)s.%(msecs)03d %(levelname)s {component} %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "pysyncobj"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
