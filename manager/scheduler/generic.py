"""What a node has left of its generic resources, and which pieces a task gets (pure but for the `Pieces` it changes).

Counted pieces are taken by number, named ones by name, the first names first: so the same decision comes out of the
same facts. What a task got is stored in it, and is what it gives back.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from pyswarm.proto.model.resources import GenericResource

Wanted = tuple[GenericResource, ...]


class Pieces:
    """A node's pieces that no task holds."""

    def __init__(self, inventory: Wanted) -> None:
        self._inventory = frozenset(inventory)
        self._counted = Counter({piece.kind: piece.count for piece in inventory if not piece.name})
        self._named = {piece for piece in inventory if piece.name}

    def suffice(self, wanted: Wanted) -> bool:
        return all(self.left(need.kind) >= need.count for need in wanted)

    def left(self, kind: str) -> int:
        return self._counted[kind] + sum(piece.kind == kind for piece in self._named)

    def choose(self, wanted: Wanted) -> Wanted:
        """Return the pieces for a task; there must be enough."""
        chosen: list[GenericResource] = []
        for need in wanted:
            names = sorted(piece.name for piece in self._named if piece.kind == need.kind)
            if names:
                chosen += [GenericResource(need.kind, name=name) for name in names[: need.count]]
            else:
                chosen.append(need)
        return tuple(chosen)

    def hold(self, pieces: Collection[GenericResource]) -> bool:
        """Whether these very pieces are here and free."""
        counts = Counter({piece.kind: piece.count for piece in pieces if not piece.name})
        return all(piece in self._named for piece in pieces if piece.name) and counts <= self._counted

    def take(self, pieces: Iterable[GenericResource]) -> None:
        for piece in pieces:
            if piece.name:
                self._named.discard(piece)
            else:
                self._counted[piece.kind] -= piece.count

    def give_back(self, pieces: Iterable[GenericResource]) -> None:
        for piece in pieces:
            if not piece.name:
                self._counted[piece.kind] += piece.count
            elif piece in self._inventory:
                self._named.add(piece)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pieces) and (self._named, +self._counted) == (other._named, +other._counted)

    __hash__ = None  # type: ignore[assignment]
