"""Ids of objects that belong together (a service's tasks, a node's), kept as objects come and go (pure).

A group holds ids and not the objects: most writes change an object, few where it belongs. Readers want a group in
order; that order depends on what does not change while an object stays in place, so it is found once for each
membership, at the first reading, and not at each.
"""

from collections.abc import Callable, Iterable, Iterator

from immutables import Map, MapMutation


class Group:
    """Some ids. Never changed once made, but for remembering its order."""

    __slots__ = ("_order", "ids")

    def __init__(self, ids: Map[str, None] = Map()) -> None:  # noqa: B008 - immutable
        self.ids = ids
        self._order: tuple[str, ...] | None = None

    def in_order(self, sort: Callable[[Iterable[str]], tuple[str, ...]]) -> tuple[str, ...]:
        """Return the ids as `sort` puts them; asked once. Whoever changes what it looks at makes a new group."""
        if self._order is None:
            # Two threads may both do this, and come to the same.
            self._order = sort(self.ids)
        return self._order

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self.ids == other.ids

    __hash__ = None  # type: ignore[assignment]


class GroupsDraft:
    """An index under change: ids by group. The group "" is nobody's and is not kept."""

    def __init__(self, base: Map[str, Group]) -> None:
        self._base = base
        self._open: dict[str, MapMutation[str, None]] = {}

    def move(self, id: str, from_group: str, to_group: str) -> None:
        """Take an id out of one group and put it into another."""
        if from_group == to_group:
            return
        if from_group:
            del self._opened(from_group)[id]
        if to_group:
            self._opened(to_group)[id] = None

    def reorder(self, group: str) -> None:
        """Something that the group's order depends on has changed."""
        if group:
            self._opened(group)

    def freeze(self) -> Map[str, Group]:
        """Return the groups as they are now; ends the draft."""
        if not self._open:
            return self._base
        groups = self._base.mutate()
        for name, mutation in self._open.items():
            ids = mutation.finish()
            if ids:
                groups[name] = Group(ids)
            else:
                groups.pop(name, None)
        return groups.finish()

    def _opened(self, group: str) -> MapMutation[str, None]:
        mutation = self._open.get(group)
        if mutation is None:
            existing = self._base.get(group)
            mutation = self._open[group] = (Map() if existing is None else existing.ids).mutate()
        return mutation
