"""Every key of Compose version 3, and what becomes of it: carried out, ignored with a warning, or refused.

Nothing is ignored silently. The warnings are for the keys that Docker's own `stack deploy` ignores too;
a key that Docker carries out and we do not is refused, because the service would not be what was asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Vocabulary:
    """Keys of one section. `ignored` maps to the reason, `refused` to the remedy."""

    supported: frozenset[str]
    ignored: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_keys(self) -> frozenset[str]:
        return self.supported | self.ignored.keys() | self.refused.keys()


_LATER = "It is not available yet: remove it."

TOP = Vocabulary(
    frozenset({"version", "services", "secrets", "configs"}),
    ignored={"name": "the stack's name is the one on the command line"},
    refused={
        "networks": "Overlay networks are not available yet: remove them. Published ports work without.",
        "volumes": "Named volumes are not available yet: mount a directory of the node (type: bind) or a tmpfs.",
        "include": "Give every file on the command line: -c A -c B.",
    },
)

_CLUSTER = "it has no effect in a cluster"

SERVICE = Vocabulary(
    frozenset(
        {"image", "command", "entrypoint", "environment", "env_file", "labels", "deploy", "ports", "volumes", "user"}
        | {"working_dir", "hostname", "stop_signal", "stop_grace_period", "cap_add", "cap_drop", "read_only"}
        | {
            "dns",
            "dns_opt",
            "dns_search",
            "extra_hosts",
            "sysctls",
            "ulimits",
            "logging",
            "tty",
            "stdin_open",
            "oom_score_adj",
        }
        | {"init", "secrets", "configs", "healthcheck", "readiness", "pre_stop", "drain_delay"}
    ),
    ignored={
        "build": "images are pulled from a registry: build and push it first",
        "cgroup_parent": _CLUSTER,
        "cgroupns_mode": _CLUSTER,
        "container_name": "a task's name is made from its service and slot",
        "depends_on": "services start together: let the program wait for what it needs",
        "devices": _CLUSTER,
        "domainname": _CLUSTER,
        "expose": "only published ports matter",
        "external_links": _CLUSTER,
        "ipc": _CLUSTER,
        "links": _CLUSTER,
        "mac_address": _CLUSTER,
        "network_mode": _CLUSTER,
        "pid": _CLUSTER,
        "privileged": _CLUSTER,
        "restart": "use deploy.restart_policy",
        "security_opt": _CLUSTER,
        "shm_size": _CLUSTER,
        "userns_mode": _CLUSTER,
    },
    refused={
        "cpu_quota": "Use deploy.resources.limits.cpus.",
        "cpu_shares": "Use deploy.resources.limits.cpus.",
        "cpus": "Use deploy.resources.limits.cpus.",
        "cpuset": "Use deploy.resources.limits.cpus.",
        "credential_spec": "It is for Windows containers only.",
        "extends": "Use a YAML anchor (&name, <<: *name) or a second file (-c A -c B).",
        "isolation": "It is for Windows containers only.",
        "mem_limit": "Use deploy.resources.limits.memory.",
        "mem_reservation": "Use deploy.resources.reservations.memory.",
        "mem_swappiness": "Use deploy.resources.limits.memory.",
        "memswap_limit": "Use deploy.resources.limits.memory.",
        "networks": "Overlay networks are not available yet: remove them. Published ports work without.",
        "pids_limit": "Use deploy.resources.limits.pids.",
        "platform": "Use deploy.placement.constraints: node.platform.arch==…",
        "profiles": "Put such services into a file of their own: -c A -c B.",
        "pull_policy": "An image is pulled when the node lacks it.",
        "runtime": _LATER,
        "scale": "Use deploy.replicas.",
        "tmpfs": "Use volumes with type: tmpfs.",
        "volume_driver": "Mount a directory of the node (type: bind) or a tmpfs.",
        "volumes_from": "Mount the same directory in both services.",
    },
)

HEALTHCHECK = Vocabulary(
    frozenset({"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"})
)
"""`healthcheck`, and `readiness`, which is ours."""

LOGGING = Vocabulary(frozenset({"driver", "options"}))

ULIMIT = Vocabulary(frozenset({"soft", "hard"}))

PRE_STOP = Vocabulary(
    frozenset({"command"}),
    refused={
        "user": "The hook is executed as the container's user.",
        "privileged": "The hook has the rights of the container.",
        "working_dir": "The hook is executed in the container's working directory.",
        "environment": "The hook has the container's environment: set it in the command.",
    },
)
"""A hook that is executed before the container is stopped."""

PAYLOAD = Vocabulary(
    frozenset({"file", "content", "environment", "external", "name", "labels"}),
    refused={
        "driver": "Plugins are not available: name a file.",
        "driver_opts": "Plugins are not available: name a file.",
        "template_driver": _LATER,
    },
)
"""An entry of the top level's `secrets:` or `configs:`."""

PAYLOAD_USE = Vocabulary(frozenset({"source", "target", "uid", "gid", "mode", "propagation", "signal"}))
"""A service's use of one, in its long spelling."""

DEPLOY = Vocabulary(
    frozenset({"mode", "replicas", "labels", "resources", "restart_policy", "placement"})
    | {"update_config", "rollback_config", "move_config", "schedule"},
    refused={"endpoint_mode": "Virtual addresses are not available yet: remove it."},
)
RESOURCES = Vocabulary(frozenset({"limits", "reservations"}))
LIMITS = Vocabulary(frozenset({"cpus", "memory", "pids"}))
RESERVATIONS = Vocabulary(
    frozenset({"cpus", "memory", "pids", "generic_resources"}),
    refused={"devices": "Reserve generic_resources, which nodes list in their config.toml."},
)
GENERIC_RESOURCE = Vocabulary(frozenset({"discrete_resource_spec"}))
DISCRETE_RESOURCE = Vocabulary(frozenset({"kind", "value"}))
RESTART_POLICY = Vocabulary(frozenset({"condition", "delay", "max_attempts", "window", "max_delay"}))
PLACEMENT = Vocabulary(
    frozenset({"constraints", "preferences", "max_replicas_per_node", "affinities", "strategy", "priority"})
)
PREFERENCE = Vocabulary(frozenset({"spread"}))
UPDATE_CONFIG = Vocabulary(
    frozenset({"parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order"})
    | {"progress_deadline", "canary"}
)
SCHEDULE = Vocabulary(
    frozenset({"cron", "time_zone", "concurrency", "missed_run_window", "keep_completed", "keep_failed", "suspend"})
)
MOVE_CONFIG = Vocabulary(frozenset({"parallelism", "order", "rebalance"}))
PORT = Vocabulary(
    frozenset({"name", "target", "published", "protocol", "mode"}),
    refused={
        "app_protocol": "Remove it: ports are carried as they are.",
        "host_ip": "A published port answers on every address of the node.",
    },
)
VOLUME = Vocabulary(
    frozenset({"type", "source", "target", "read_only", "tmpfs"}),
    ignored={"consistency": "it matters on desktops only"},
    refused={
        "bind": "Propagation cannot be chosen: it is always rprivate.",
        "volume": "Named volumes are not available yet: mount a directory (type: bind) or a tmpfs.",
        "cluster": "Cluster volumes are not available yet: mount a directory (type: bind) or a tmpfs.",
        "image": "Image volumes are not available yet: mount a directory (type: bind) or a tmpfs.",
    },
)
TMPFS = Vocabulary(frozenset({"size"}), refused={"mode": _LATER})
