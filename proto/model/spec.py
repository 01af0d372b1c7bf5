"""Specs: what the user asked for. The system never edits one.

Defaults are Docker Swarm's (docker/cli cli/command/service/opts.go). A time is in seconds.
Tuples, not lists, and frozen mappings by convention: a spec is shared by every snapshot that holds it.
"""

import posixpath
from collections.abc import Mapping

from msgspec import Struct

from pyswarm.proto.model.resources import Platform, ResourceRequirements
from pyswarm.proto.model.states import (
    Availability,
    Concurrency,
    FailureAction,
    MountType,
    PlacementStrategy,
    PublishMode,
    RestartCondition,
    Role,
    UpdateOrder,
)


class Mount(Struct, frozen=True, omit_defaults=True, gc=False):
    type: MountType = MountType.BIND
    source: str = ""
    target: str = ""
    read_only: bool = False
    tmpfs_size_bytes: int = 0


class FileTarget(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a secret or config appears in a container: a path, or a name below the default directory.

    A new version reaches tasks by a rolling update or, `in_place`, by replacing the file of those that run: one name
    means the new file from one moment to the next. They are then sent `signal`, if there is one. The directory of such
    a file holds nothing else but secrets and configs: what the image has there is hidden.
    """

    name: str = ""
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444
    in_place: bool = False
    signal: str = ""


class SecretReference(Struct, frozen=True, omit_defaults=True, gc=False):
    """`secret_id` is filled in from the name when the service is written."""

    secret_id: str = ""
    secret_name: str = ""
    file: FileTarget = FileTarget()

    @property
    def path(self) -> str:
        """Where the container finds it."""
        return posixpath.join("/run/secrets", self.file.name or self.secret_name)


class ConfigReference(Struct, frozen=True, omit_defaults=True, gc=False):
    """`config_id` is filled in from the name when the service is written."""

    config_id: str = ""
    config_name: str = ""
    file: FileTarget = FileTarget()

    @property
    def path(self) -> str:
        """Where the container finds it."""
        return posixpath.join("/", self.file.name or self.config_name)


class HealthConfig(Struct, frozen=True, omit_defaults=True, gc=False):
    """A probe of a running container; a 0 is the image's value, or else Docker's default (worker/agent/health.py).

    `test` is as in Docker: nothing (what the image says), ("NONE",), ("CMD", word, ...), ("CMD-SHELL", line); and
    besides ("HTTP", "port/path") and ("TCP", "port").
    """

    test: tuple[str, ...] = ()
    interval_seconds: float = 0.0
    timeout_seconds: float = 0.0
    retries: int = 0
    start_period_seconds: float = 0.0
    start_interval_seconds: float = 0.0


class Ulimit(Struct, frozen=True, omit_defaults=True, gc=False):
    """A limit of each process, by its name without RLIMIT_, in small letters; -1 is no limit."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class ContainerSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    hostname: str = ""
    labels: Mapping[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    stop_signal: str = ""
    stop_grace_period_seconds: float = 10.0
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    read_only: bool = False
    init: bool = False
    tty: bool = False
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[ConfigReference, ...] = ()
    healthcheck: HealthConfig = HealthConfig()
    readiness: HealthConfig = HealthConfig()
    pre_stop: tuple[str, ...] = ()
    drain_delay_seconds: float = 0.0
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    open_stdin: bool = False
    groups: tuple[str, ...] = ()
    oom_score_adj: int = 0


def payload_id(reference: SecretReference | ConfigReference) -> str:
    """Return the id of what a container's file holds."""
    return reference.secret_id if isinstance(reference, SecretReference) else reference.config_id


def replaced_files(container: ContainerSpec) -> tuple[SecretReference | ConfigReference, ...]:
    """Return the files of a container that are replaced in place."""
    files: tuple[SecretReference | ConfigReference, ...] = (*container.secrets, *container.configs)
    return tuple(reference for reference in files if reference.file.in_place)


class RestartPolicy(Struct, frozen=True, omit_defaults=True, gc=False):
    """`window_seconds` 0 counts attempts over the slot's whole history; `max_attempts` 0 never gives up.

    In a crash loop the delay doubles up to `max_delay_seconds`; 0 always waits the same.
    """

    condition: RestartCondition = RestartCondition.ANY
    delay_seconds: float = 5.0
    max_attempts: int = 0
    window_seconds: float = 0.0
    max_delay_seconds: float = 60.0


PRIORITY_MAX = 1000
"""A placement's priority lies between minus this and this."""


class Placement(Struct, frozen=True, omit_defaults=True, gc=False):
    """`affinities` name services to be near to or away from (proto/codec/affinity.py). Of tasks that wait at the same
    time, those of the highest `priority` choose first; nobody is moved for them.
    """

    constraints: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ()
    max_replicas: int = 0
    platforms: tuple[Platform, ...] = ()
    affinities: tuple[str, ...] = ()
    strategy: PlacementStrategy = PlacementStrategy.SPREAD
    priority: int = 0


class LogDriver(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where the output of tasks goes (proto/codec/log_settings.py); no name is json-file."""

    name: str = ""
    options: Mapping[str, str] = {}


class TaskSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    container_spec: ContainerSpec = ContainerSpec()
    resources: ResourceRequirements = ResourceRequirements()
    restart_policy: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    force_update: int = 0
    log_driver: LogDriver = LogDriver()


class ReplicatedMode(Struct, frozen=True, omit_defaults=True, gc=False):
    replicas: int = 1


class GlobalMode(Struct, frozen=True, omit_defaults=True, gc=False):
    pass


class ReplicatedJob(Struct, frozen=True, omit_defaults=True, gc=False):
    """Tasks that run to completion: `total_completions` of them, at most `max_concurrent` (0: all) at once."""

    max_concurrent: int = 1
    total_completions: int = 1


class GlobalJob(Struct, frozen=True, omit_defaults=True, gc=False):
    """One task runs to completion on every node that matches."""


class ServiceMode(Struct, frozen=True, omit_defaults=True, gc=False):
    """Exactly one is set. (`global` is a keyword of Python, hence the suffix.)"""

    replicated: ReplicatedMode | None = None
    global_mode: GlobalMode | None = None
    replicated_job: ReplicatedJob | None = None
    global_job: GlobalJob | None = None

    @property
    def name(self) -> str:
        """What `--mode` calls it."""
        return next((mode for mode, value in zip(MODES, self._all, strict=True) if value is not None), "replicated")

    @property
    def count(self) -> int:
        """How many modes are set; a valid spec has one."""
        return sum(value is not None for value in self._all)

    @property
    def is_job(self) -> bool:
        return self.replicated_job is not None or self.global_job is not None

    @property
    def is_per_node(self) -> bool:
        """Whether its slots are nodes rather than numbers."""
        return self.global_mode is not None or self.global_job is not None

    @property
    def _all(self) -> tuple[object | None, ...]:
        return (self.replicated, self.global_mode, self.replicated_job, self.global_job)


MODES = ("replicated", "global", "replicated-job", "global-job")
"""The service modes, as flags and stack files call them."""


class CronSchedule(Struct, frozen=True, omit_defaults=True, gc=False):
    """When a job runs: five cron fields, read in a time zone.

    A run that could not start in time (no leader, no quorum) may start `missed_run_window_seconds` later at the latest;
    of several that were missed only the last one. Runs that ended are remembered with their tasks, besides the last
    run: `keep_completed` and `keep_failed` of them.
    """

    expression: str = ""
    time_zone: str = "UTC"
    concurrency: Concurrency = Concurrency.FORBID
    missed_run_window_seconds: float = 300.0
    keep_completed: int = 3
    keep_failed: int = 1
    suspended: bool = False


class UpdateConfig(Struct, frozen=True, omit_defaults=True, gc=False):
    """`parallelism` 0 updates all slots at once.

    A new task that does not run before the progress deadline (0: never) has failed. `canary` steps ("1", "25%") are how
    many slots are updated before those are proven in their monitor time.
    """

    parallelism: int = 1
    delay_seconds: float = 0.0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor_seconds: float = 5.0
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST
    progress_deadline_seconds: float = 600.0
    canary: tuple[str, ...] = ()


class MoveConfig(Struct, frozen=True, omit_defaults=True, gc=False):
    """How running tasks are moved off drained nodes, and to spread a service evenly again: the disruption budget.

    At most `parallelism` slots are disturbed at once, whatever disturbs them; 0: a quarter of them, rounded up. An
    unset order is start-first, but for a single replica that is updated stop-first: two of it may be too many.
    `rebalances`: spread it again by itself when a node joins or comes back.
    """

    parallelism: int = 0
    order: UpdateOrder = UpdateOrder.UNSET
    rebalances: bool = False


class PortConfig(Struct, frozen=True, omit_defaults=True, gc=False):
    """`published_port` 0 asks the allocator for one."""

    name: str = ""
    protocol: str = "tcp"
    target_port: int = 0
    published_port: int = 0
    publish_mode: PublishMode = PublishMode.INGRESS


class EndpointSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    mode: str = "vip"
    ports: tuple[PortConfig, ...] = ()


class ServiceSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    name: str = ""
    labels: Mapping[str, str] = {}
    task_template: TaskSpec = TaskSpec()
    mode: ServiceMode = ServiceMode()
    update_config: UpdateConfig = UpdateConfig()
    rollback_config: UpdateConfig = UpdateConfig()
    endpoint_spec: EndpointSpec = EndpointSpec()
    move_config: MoveConfig = MoveConfig()
    schedule: CronSchedule | None = None


class SecretSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    """`data` never crosses the API; it goes to the nodes whose tasks use it, and stays in their memory."""

    name: str = ""
    labels: Mapping[str, str] = {}
    data: bytes = b""

    def __repr__(self) -> str:
        return f"<SecretSpec {self.name}>"  # what it holds is for no log


class ConfigSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    name: str = ""
    labels: Mapping[str, str] = {}
    data: bytes = b""


DRAIN_TIMEOUT_SECONDS = 300.0
"""How long tasks may stay on a drained node until others run in their place."""


class NodeSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    name: str = ""
    labels: Mapping[str, str] = {}
    role: Role = Role.WORKER
    availability: Availability = Availability.ACTIVE
    drain_timeout_seconds: float = DRAIN_TIMEOUT_SECONDS


class ClusterSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    task_history_retention_limit: int = 5
    heartbeat_period_seconds: float = 0.5
    node_cert_expiry_seconds: float = 90 * 24 * 3600.0
    autolock: bool = False
    """Whether a manager that was started needs the unlock key before it takes part."""
