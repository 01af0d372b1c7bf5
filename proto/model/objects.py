"""Stored objects: spec, status and bookkeeping, as frozen records.

`version` is the Raft index of the commit that last wrote the object (never a counter of its own) and
is set at apply; `created_at` and `updated_at` (seconds since the epoch) are stamped by the proposer.
"""

from collections.abc import Mapping

from msgspec import Struct

from pyswarm.proto.model.resources import GenericResource, Platform, Resources
from pyswarm.proto.model.spec import (
    ClusterSpec,
    ConfigSpec,
    NodeSpec,
    PortConfig,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
)
from pyswarm.proto.model.states import JobState, NodeState, Reachability, Role, TaskState, UpdateState

STACK_LABEL = "com.docker.stack.namespace"
"""Service label naming the stack it belongs to (Docker's own, so that existing tooling reads it)."""

VERSION_OF_LABEL = "pyswarm.version-of"
VERSION_LABEL = "pyswarm.version"
"""What a version of a secret or config is of, and its number. The first one has neither."""


class UpdateStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    state: UpdateState = UpdateState.UNSET
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""


class JobStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    """The present run of a job. `iteration` counts runs; tasks of earlier ones do not count towards it."""

    iteration: int = 0
    state: JobState = JobState.UNSET
    started_at: float = 0.0
    ended_at: float = 0.0
    message: str = ""
    scheduled_at: float = 0.0

    @property
    def is_active(self) -> bool:
        return self.iteration > 0 and self.state in (JobState.UNSET, JobState.RUNNING)


class CronStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    """How far a schedule has been followed: what was dealt with once is never dealt with again, whoever leads.

    `since` is when it began to count, `last_at` the last of its moments that was dealt with (seconds since the epoch),
    `forced` the last run by hand, `message` why the last moment went without a run.
    """

    since: float = 0.0
    last_at: float = 0.0
    forced: int = 0
    message: str = ""


class Service(Struct, frozen=True, omit_defaults=True, gc=False, tag="service"):
    """`spec_version` counts changes of the task template or ports; each has a `Revision`."""

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    spec: ServiceSpec = ServiceSpec()
    previous_spec: ServiceSpec | None = None
    spec_version: int = 1
    update_status: UpdateStatus = UpdateStatus()
    ports: tuple[PortConfig, ...] = ()
    job_status: JobStatus = JobStatus()
    runs: tuple[JobStatus, ...] = ()
    cron: CronStatus = CronStatus()

    @property
    def stack(self) -> str:
        """Name of the stack the service belongs to, or ""."""
        return self.spec.labels.get(STACK_LABEL, "")


def revision_id(service_id: str, spec_version: int) -> str:
    return f"{service_id}.{spec_version}"


class Revision(Struct, frozen=True, omit_defaults=True, gc=False, tag="revision"):
    """One version of a service's task template: tasks name it instead of copying the spec.

    Written with the service that introduces it, immutable, deleted by the reaper when it is no longer
    the service's current one and no task names it.
    """

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    service_id: str = ""
    spec_version: int = 1
    task_template: TaskSpec = TaskSpec()
    ports: tuple[PortConfig, ...] = ()
    service_name: str = ""


class ContainerStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False


class TaskStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    """`timestamp` is of the state. `running_at` is when a manager first saw it run, kept after its end; 0 if never."""

    state: TaskState = TaskState.NEW
    timestamp: float = 0.0
    message: str = ""
    err: str = ""
    container_status: ContainerStatus | None = None
    running_at: float = 0.0


class Move(Struct, frozen=True, omit_defaults=True, gc=False):
    """That a task shall be moved elsewhere, why, and since when (seconds since the epoch)."""

    why: str = ""
    since: float = 0.0


class Task(Struct, frozen=True, omit_defaults=True, gc=False, tag="task"):
    """One attempt to run one container. Never restarted, bound to one node for life.

    `slot` is the replica number from 1 (0 for a global service, whose slot is the node). `desired_state` (COMPLETE
    for a job's task, else RUNNING, until it is told to stop) is written by managers only, `status` after ASSIGNED by
    the agent only; both only grow.
    A replacement waits with desired state READY until `start_after` (seconds since the epoch). `why` is the decision
    that made the task, `stop_why` the one that it shall stop.
    """

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    service_id: str = ""
    slot: int = 0
    node_id: str = ""
    spec_version: int = 1
    status: TaskStatus = TaskStatus()
    desired_state: TaskState = TaskState.RUNNING
    start_after: float = 0.0
    why: str = ""
    job_iteration: int = 0
    assigned_generic: tuple[GenericResource, ...] = ()
    stop_why: str = ""
    move: Move | None = None

    @property
    def state(self) -> TaskState:
        return self.status.state

    @property
    def revision_id(self) -> str:
        return revision_id(self.service_id, self.spec_version)

    @property
    def is_wanted(self) -> bool:
        """Whether managers still want it to run (it may be dead all the same)."""
        return self.desired_state <= TaskState.COMPLETE

    @property
    def is_live(self) -> bool:
        """Wanted and not dead: it fills its slot."""
        return self.desired_state <= TaskState.COMPLETE and self.status.state <= TaskState.RUNNING


class NodeDescription(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the agent says of its machine; untrusted except for what the certificate proves."""

    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    engine_version: str = ""
    engine_labels: Mapping[str, str] = {}


class NodeStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    addr: str = ""
    changed_at: float = 0.0


class ManagerStatus(Struct, frozen=True, omit_defaults=True, gc=False):
    """A manager's membership of the consensus group.

    `leader` and `reachability` are filled in when asked, not stored.
    """

    raft_id: str = ""
    addr: str = ""
    reachability: Reachability = Reachability.UNSET
    leader: bool = False


class Node(Struct, frozen=True, omit_defaults=True, gc=False, tag="node"):
    """`spec.role` is the wish, `role` what the certificate says today."""

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    role: Role = Role.WORKER
    manager_status: ManagerStatus | None = None
    availability_since: float = 0.0


class JoinTokens(Struct, frozen=True, omit_defaults=True, gc=False):
    worker: str = ""
    manager: str = ""


class RootCA(Struct, frozen=True, omit_defaults=True, gc=False):
    """`key_pem` lives only in the replicated store, which is sealed at rest; it never crosses the API."""

    certificate_pem: str = ""
    key_pem: str = ""
    digest: str = ""
    join_tokens: JoinTokens = JoinTokens()


class Cluster(Struct, frozen=True, omit_defaults=True, gc=False, tag="cluster"):
    """The one object about the whole. `blacklist` maps removed node ids to when their certificates have expired.

    `unlock_key` wraps what opens the managers' state, b"" while they are not locked; like the root CA's key it lives
    only in the replicated store.
    """

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    spec: ClusterSpec = ClusterSpec()
    root_ca: RootCA = RootCA()
    blacklist: Mapping[str, float] = {}
    unlock_key: bytes = b""


class Secret(Struct, frozen=True, omit_defaults=True, gc=False, tag="secret"):
    """What it holds never changes: a new content is a new secret."""

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    spec: SecretSpec = SecretSpec()


class Config(Struct, frozen=True, omit_defaults=True, gc=False, tag="config"):
    """As a secret, but readable by whoever may read the API."""

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    spec: ConfigSpec = ConfigSpec()


class Stack(Struct, frozen=True, omit_defaults=True, gc=False, tag="stack"):
    """What a stack was deployed as, and before that: its id is its name. Which services it has, their labels say.

    `deploys` counts: there is something before from the second on.
    """

    id: str
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    services: tuple[ServiceSpec, ...] = ()
    previous: tuple[ServiceSpec, ...] = ()
    deploys: int = 1


Object = Service | Revision | Task | Node | Cluster | Secret | Config | Stack
"""Anything the store keeps. Networks and volumes join this union with their issues."""
