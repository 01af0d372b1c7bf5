"""A container as it is known: frozen facts and the moves between its states. Pure.

    CREATED -> RUNNING -> STOPPED     CREATED -> STOPPED when it could not be started
    RUNNING <-> PAUSED -> STOPPED

One-shot: a stopped container never runs again.
"""

import re
import signal
from typing import Any

import msgspec

from pyswarm.agent_runtime.kernel.process import ProcessId
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

DEFAULT_GRACE_SECONDS = 10.0
LOST_EXIT_CODE = 255
"""Reported when nobody can know how a container ended."""

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")


class Outcome(msgspec.Struct, frozen=True):
    """How a container ended. `finished_at`: seconds since the epoch."""

    exit_code: int
    finished_at: float
    oom_killed: bool = False
    error: str = ""


class Created(msgspec.Struct, frozen=True):
    """What creating fixes: the image as it was then, and the request (as protobuf bytes)."""

    created_at: float
    image_id: str
    layers: tuple[str, ...]
    image: dict[str, Any]
    """The image config's `config` object."""


class Record(msgspec.Struct, frozen=True):
    id: str
    config: pb.ContainerConfig
    created: Created
    process: ProcessId | None = None
    started_at: float = 0.0
    outcome: Outcome | None = None
    limits: types.Resources | None = None
    """Limits that were updated since; None: those of the request."""
    paused: bool = False
    oom_kills: int = 0
    """How many of its processes the kernel was seen to kill for its memory limit."""
    health: pb.ContainerHealth | None = None
    """What was reported of it; None: nobody checks it."""

    @property
    def present_config(self) -> pb.ContainerConfig:
        """The request, with the limits of now."""
        if self.limits is None:
            return self.config
        config = pb.ContainerConfig()
        config.CopyFrom(self.config)
        config.limits.CopyFrom(self.limits)
        return config

    @property
    def is_alive(self) -> bool:
        """Whether its first process was started and has not ended: it runs, or stands still."""
        return self.process is not None and self.outcome is None

    @property
    def state(self) -> "pb.ContainerState.ValueType":
        if self.outcome is not None:
            return pb.STOPPED
        if self.process is None:
            return pb.CREATED
        return pb.CONTAINER_PAUSED if self.paused else pb.CONTAINER_RUNNING

    def running(self, process: ProcessId, started_at: float) -> "Record":
        assert self.state == pb.CREATED, self.id
        return msgspec.structs.replace(self, process=process, started_at=started_at)

    def stopped(self, outcome: Outcome) -> "Record":
        assert self.outcome is None, self.id
        return msgspec.structs.replace(self, outcome=outcome)

    def with_pause(self, paused: bool) -> "Record":
        assert self.is_alive, self.id
        return msgspec.structs.replace(self, paused=paused)

    def with_oom_kills(self, oom_kills: int) -> "Record":
        assert oom_kills > self.oom_kills, self.id
        return msgspec.structs.replace(self, oom_kills=oom_kills)

    def with_health(self, health: pb.ContainerHealth) -> "Record":
        return msgspec.structs.replace(self, health=health)

    def with_limits(self, limits: types.Resources) -> "Record":
        return msgspec.structs.replace(self, limits=limits)

    def to_message(self, *, removed: bool = False) -> pb.Container:
        outcome = self.outcome or Outcome(0, 0.0)
        return pb.Container(
            id=self.id,
            config=self.config,
            state=self.state,
            pid=self.process.pid if self.is_alive and self.process else 0,
            created_at=self.created.created_at,
            started_at=self.started_at,
            finished_at=outcome.finished_at,
            exit_code=outcome.exit_code,
            oom_killed=outcome.oom_killed or self.oom_kills > 0,
            error=outcome.error,
            image_id=self.created.image_id,
            removed=removed,
            limits=self.present_config.limits,
            health=self.health,
        )

    @property
    def stop_signal(self) -> int:
        return parse_signal(self.config.stop_signal or self.created.image.get("StopSignal") or "SIGTERM")

    @property
    def grace_seconds(self) -> float:
        return self.config.stop_grace_period_seconds or DEFAULT_GRACE_SECONDS


def check_id(container_id: str) -> None:
    """Raise InvalidArgument unless the id can name a directory and a cgroup."""
    if not _ID.fullmatch(container_id):
        raise InvalidArgument(
            f"{container_id!r} is no container id",
            remedy="Use 1 to 64 letters, digits, `_`, `.` and `-`, starting with a letter or digit.",
        )


def parse_signal(text: str) -> int:
    """Return the number of `SIGTERM`, `term`, `15`, `SIGRTMIN+3`. Raises InvalidArgument."""
    name = text.strip().upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if name.isdecimal() and 0 < int(name) < signal.NSIG:
        return int(name)
    if plus and base == "RTMIN" and offset.isdecimal() and signal.SIGRTMIN + int(offset) <= signal.SIGRTMAX:
        return signal.SIGRTMIN + int(offset)
    number = getattr(signal, f"SIG{name}", None)
    if isinstance(number, signal.Signals):
        return int(number)
    raise InvalidArgument(f"there is no signal {text!r}", remedy="Use a name such as SIGTERM, or a number.")
