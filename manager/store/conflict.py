"""What goes wrong when changes no longer fit the state they were decided on (pure).

`Conflict` is ordinary: somebody else wrote first, decide again. `InvalidChanges` is a fault of whoever
made the list: it can fit no state at all.
"""

from pyswarm.manager.store.changes import Kind
from pyswarm.proto.errors import Internal, OutOfSequence


class Conflict(OutOfSequence):
    """An object is not at the version a change was decided on; nothing of the write took effect.

    `expected` and `found` are versions; 0 stands for "does not exist". When a service's name is what
    clashes, `found` is the version of the service `id` that holds it and `expected` is 0.
    """

    def __init__(self, kind: Kind, id: str, *, expected: int, found: int, why: str = "") -> None:
        super().__init__(why or _explain(kind, id, expected, found))
        self.kind: Kind = kind
        self.id = id
        self.expected = expected
        self.found = found


class InvalidChanges(Internal):
    """A list of changes that writes one object twice, or an object without an id."""


def _explain(kind: Kind, id: str, expected: int, found: int) -> str:
    if not found:
        return f"{kind} {id} does not exist (any more); it was expected at version {expected}"
    if not expected:
        return f"{kind} {id} exists already, at version {found}"
    return f"{kind} {id} is at version {found}, not at {expected}: update out of sequence"
