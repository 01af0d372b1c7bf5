"""Resources and their arithmetic. CPUs in billionths, memory in bytes; 0 means "not limited" or "none reserved"."""

from msgspec import Struct


class Platform(Struct, frozen=True, omit_defaults=True, gc=False):
    architecture: str = ""
    os: str = ""


class Resources(Struct, frozen=True, omit_defaults=True, gc=False):
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        if other == NO_RESOURCES:
            return self
        return Resources(
            self.nano_cpus + other.nano_cpus, self.memory_bytes + other.memory_bytes, self.pids + other.pids
        )

    def __sub__(self, other: "Resources") -> "Resources":
        if other == NO_RESOURCES:
            return self
        return Resources(
            self.nano_cpus - other.nano_cpus, self.memory_bytes - other.memory_bytes, self.pids - other.pids
        )


NO_RESOURCES = Resources()


class ResourceRequirements(Struct, frozen=True, omit_defaults=True, gc=False):
    limits: Resources = Resources()
    reservations: Resources = Resources()
