"""Resources and their arithmetic. CPUs in billionths, memory in bytes; 0 means "not limited" or "none reserved"."""

from msgspec import Struct


class Platform(Struct, frozen=True, omit_defaults=True, gc=False):
    architecture: str = ""
    os: str = ""


class GenericResource(Struct, frozen=True, omit_defaults=True, gc=False):
    """`count` of a kind of thing, or with a `name` the one piece that is called so. A reservation only counts."""

    kind: str
    count: int = 0
    name: str = ""


class Resources(Struct, frozen=True, omit_defaults=True, gc=False):
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0
    generic: tuple[GenericResource, ...] = ()
    """Left out of the arithmetic: which pieces a task got is its own (scheduler/generic.py)."""

    def __add__(self, other: "Resources") -> "Resources":
        if other == NO_RESOURCES:
            return self
        return Resources(
            self.nano_cpus + other.nano_cpus,
            self.memory_bytes + other.memory_bytes,
            self.pids + other.pids,
            self.generic,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        if other == NO_RESOURCES:
            return self
        return Resources(
            self.nano_cpus - other.nano_cpus,
            self.memory_bytes - other.memory_bytes,
            self.pids - other.pids,
            self.generic,
        )


NO_RESOURCES = Resources()


class ResourceRequirements(Struct, frozen=True, omit_defaults=True, gc=False):
    limits: Resources = Resources()
    reservations: Resources = Resources()
