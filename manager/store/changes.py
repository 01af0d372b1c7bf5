"""A change is one create, update or delete in the store; a plan is what a decision asks for (pure).

Each change names the version it was decided on. It is checked again when the entry is applied: if any
check of an entry fails, none of its changes takes effect and the writer is told which object moved.
"""

from typing import Literal

from msgspec import Struct

from pyswarm.proto.model.objects import Object

Kind = Literal["cluster", "node", "service", "revision", "task", "secret", "config", "stack"]


class Create(Struct, frozen=True, tag="create"):
    """The object must not exist."""

    object: Object


class Update(Struct, frozen=True, tag="update"):
    """The stored object must still be at `object.version`; the stored copy gets the new version."""

    object: Object


class Delete(Struct, frozen=True, tag="delete"):
    """The object must still be at `version`; version 0 deletes it at any version, if it exists."""

    kind: Kind
    id: str
    version: int = 0


class Expect(Struct, frozen=True, tag="expect"):
    """Nothing is written, but the object must be at `version` (0: must not exist) for the entry to apply."""

    kind: Kind
    id: str
    version: int


Change = Create | Update | Delete | Expect


class Plan(Struct, frozen=True):
    """A decision's outcome: a value that can be logged, compared and shown.

    `look_again_at` is a moment (seconds since the epoch) at which the same decision may come out
    differently although nothing was written; None when only a write can change it.
    """

    changes: tuple[Change, ...] = ()
    look_again_at: float | None = None
    why: str = ""

    def __add__(self, other: "Plan") -> "Plan":
        moments = [m for m in (self.look_again_at, other.look_again_at) if m is not None]
        return Plan(
            self.changes + other.changes,
            min(moments) if moments else None,
            "; ".join(w for w in (self.why, other.why) if w),
        )
