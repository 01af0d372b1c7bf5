"""Which hosts a lab has, what they are called and how they are addressed (pure)."""

from dataclasses import dataclass

SUBNET = "10.77.0.0/16"
PREFIX_LENGTH = 16
GATEWAY = "10.77.0.1"
REGISTRY_PORT = 5000
REGISTRY = f"registry:{REGISTRY_PORT}"
"""How every host of a lab names the registry; /etc/hosts of a host says where it is."""

MANAGERS_MAX = 9
WORKERS_MAX = 200


@dataclass(frozen=True)
class HostPlan:
    name: str
    address: str
    is_manager: bool


@dataclass(frozen=True)
class LabPlan:
    """`m1` … are managers, `w1` … workers; `m1` initialises the cluster."""

    name: str
    hosts: tuple[HostPlan, ...]

    @classmethod
    def of(cls, name: str, *, managers: int, workers: int) -> "LabPlan":
        """Return the plan of a lab; raises ValueError with the allowed numbers."""
        if not name.isalnum() or len(name) > 12:
            raise ValueError(f"a lab's name has 1 to 12 letters or digits, not {name!r}")
        if not 1 <= managers <= MANAGERS_MAX:
            raise ValueError(f"a lab has 1 to {MANAGERS_MAX} managers, not {managers}")
        if not 0 <= workers <= WORKERS_MAX:
            raise ValueError(f"a lab has 0 to {WORKERS_MAX} workers, not {workers}")
        return cls(
            name,
            (
                *(HostPlan(f"m{n}", f"10.77.1.{n}", True) for n in range(1, managers + 1)),
                *(HostPlan(f"w{n}", f"10.77.2.{n}", False) for n in range(1, workers + 1)),
            ),
        )

    def hosts_file(self) -> str:
        """Return the /etc/hosts that every host of the lab sees."""
        lines = ["127.0.0.1 localhost", f"{GATEWAY} registry"]
        lines += [f"{host.address} {host.name}" for host in self.hosts]
        return "\n".join(lines) + "\n"


def config_toml(plan: LabPlan, host: HostPlan) -> str:
    """Return the node's `config.toml`: the lab's registry speaks plain HTTP, cgroups are kept apart by host."""
    return f'insecure-registries = ["{REGISTRY}"]\ncgroup-parent = "{cgroup_parent(plan.name, host.name)}"\n'


def cgroup_parent(lab: str, host: str) -> str:
    return f"pyswarm-lab/{lab}/{host}"
