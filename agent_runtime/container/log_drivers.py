"""From a container's log driver to what carries it out."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pyswarm.agent_runtime.container.log_file import LARGEST_PIECE_BYTES, ContainerLog
from pyswarm.agent_runtime.container.log_journal import JournalSink, field_name
from pyswarm.agent_runtime.container.log_relay import Relay
from pyswarm.agent_runtime.container.log_syslog import SyslogSink
from pyswarm.agent_runtime.container.record import Record
from pyswarm.agent_runtime.container.taps import Taps
from pyswarm.proto.codec.log_settings import JOURNALD, SYSLOG, LogSettings, log_settings, tag_of
from pyswarm.proto.model.spec import LogDriver
from pyswarm.proto.v1 import runtime_pb2 as pb

TASK_NAME_LABEL = "pyswarm.task.name"


class Nowhere:
    """What a container writes with the driver `none`: read, so that it never waits, and forgotten."""

    def __init__(self) -> None:
        self.taps = Taps()

    def take(self, pipe: int, stream: str, now: float) -> int:
        data = os.read(pipe, LARGEST_PIECE_BYTES)
        self.append(data, stream, now)
        return len(data)

    def append(self, data: bytes, stream: str, _now: float, /) -> None:
        self.taps.tell(stream, data)

    def wants_more(self, _when_it_does: Callable[[], None], /) -> bool:
        return True

    def close(self) -> None:
        self.taps.close()


def settings_of(config: pb.ContainerConfig) -> LogSettings:
    """Return what the request says about its log. Raises InvalidArgument."""
    return log_settings(LogDriver(config.log_driver.name, dict(config.log_driver.options)))


def target_for(record: Record, directory: Path, tasks: asyncio.TaskGroup) -> ContainerLog | Relay | Nowhere:
    """Return where the output of a container goes; `directory` is for what is kept here."""
    settings = settings_of(record.config)
    if settings.is_readable:
        return ContainerLog(directory, largest_file_bytes=settings.largest_file_bytes, most_files=settings.most_files)
    tag = tag_of(
        settings.tag,
        container_id=record.id,
        name=name_of(record),
        image_id=record.created.image_id,
        image=record.config.image,
    )
    if settings.driver == SYSLOG:
        sink: SyslogSink | JournalSink = SyslogSink(settings, tag)
    elif settings.driver == JOURNALD:
        sink = JournalSink(_journal_fields(record, settings, tag))
    else:
        return Nowhere()
    return Relay(record.id, sink, is_blocking=settings.is_blocking, buffer_bytes=settings.buffer_bytes, tasks=tasks)


def name_of(record: Record) -> str:
    """Return what people call a container: its task's name, if it is a task's."""
    return record.config.labels.get(TASK_NAME_LABEL, record.id)


def _journal_fields(record: Record, settings: LogSettings, tag: str) -> dict[str, str]:
    chosen = {name: record.config.labels[name] for name in settings.labels if name in record.config.labels}
    chosen |= _variables((*record.created.image.get("Env", ()), *record.config.env), settings.env)
    return {
        **{field_name(name): value for name, value in chosen.items() if field_name(name)},
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": name_of(record),
        "CONTAINER_TAG": tag,
        "SYSLOG_IDENTIFIER": tag,
        "IMAGE_NAME": record.config.image,
    }


def _variables(env: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in env)
    return {name: value for name, _, value in pairs if name in wanted}
