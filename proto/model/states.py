"""Enumerations of the object model, and the order of task states.

Values equal those of `proto/v1/types.proto`. A task's observed and desired state only ever grow, so
any two reports about a task can be ordered without a clock (SwarmKit design/task_model.md).
"""

from enum import IntEnum


class Role(IntEnum):
    UNSET = 0
    WORKER = 1
    MANAGER = 2


class Availability(IntEnum):
    """The operator's wish for a node."""

    UNSET = 0
    ACTIVE = 1
    PAUSE = 2
    DRAIN = 3


class NodeState(IntEnum):
    """What the dispatcher observes. DISCONNECTED is a graceful goodbye, DOWN is silence."""

    UNSET = 0
    UNKNOWN = 1
    DOWN = 2
    READY = 3
    DISCONNECTED = 4


class Reachability(IntEnum):
    UNSET = 0
    UNREACHABLE = 1
    REACHABLE = 2


class RestartCondition(IntEnum):
    UNSET = 0
    NONE = 1
    ON_FAILURE = 2
    ANY = 3


class UpdateOrder(IntEnum):
    UNSET = 0
    STOP_FIRST = 1
    START_FIRST = 2


class FailureAction(IntEnum):
    UNSET = 0
    PAUSE = 1
    CONTINUE = 2
    ROLLBACK = 3


class UpdateState(IntEnum):
    UNSET = 0
    UPDATING = 1
    PAUSED = 2
    COMPLETED = 3
    ROLLBACK_STARTED = 4
    ROLLBACK_PAUSED = 5
    ROLLBACK_COMPLETED = 6


class JobState(IntEnum):
    UNSET = 0
    RUNNING = 1
    COMPLETE = 2
    FAILED = 3


class Concurrency(IntEnum):
    """What becomes of a scheduled run while an earlier one is active: skipped, run beside it, or in its place."""

    UNSET = 0
    FORBID = 1
    ALLOW = 2
    REPLACE = 3


class PublishMode(IntEnum):
    UNSET = 0
    INGRESS = 1
    HOST = 2


class PlacementStrategy(IntEnum):
    """Which of the nodes that fit a task gets: the emptiest, or the fullest."""

    UNSET = 0
    SPREAD = 1
    BINPACK = 2


class MountType(IntEnum):
    UNSET = 0
    BIND = 1
    VOLUME = 2
    TMPFS = 3


class TaskState(IntEnum):
    """A task's life. The number is the rank; REMOVE is a desired state only."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def is_terminal(self) -> bool:
        """Whether a task observed in this state will never run again."""
        return self > TaskState.RUNNING

    @property
    def is_failure(self) -> bool:
        """Whether a task observed in this state broke, rather than ended or was stopped."""
        return self in (TaskState.FAILED, TaskState.REJECTED)
