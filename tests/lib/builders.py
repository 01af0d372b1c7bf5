"""Small builders of model objects with sensible defaults: a test names only what it is about.

    web = a_service("web", replicas=3)
    seen = Snapshot.of(a_cluster(), a_node("n1"), web, a_revision(web), a_task("t1", service=web, slot=1, node="n1"))

Every object is at version 1 unless told otherwise, because 0 means "not stored yet".
"""

from collections.abc import Iterator, Mapping
from itertools import count

from msgspec.structs import replace

from pyswarm.proto.codec.generic_resources import parse_inventory
from pyswarm.proto.model.objects import (
    Cluster,
    JoinTokens,
    ManagerStatus,
    Node,
    NodeDescription,
    NodeStatus,
    Revision,
    RootCA,
    Service,
    Task,
    TaskStatus,
    revision_id,
)
from pyswarm.proto.model.resources import GenericResource, Platform, ResourceRequirements, Resources
from pyswarm.proto.model.spec import (
    ClusterSpec,
    ContainerSpec,
    CronSchedule,
    EndpointSpec,
    GlobalJob,
    GlobalMode,
    MoveConfig,
    NodeSpec,
    Placement,
    PortConfig,
    ReplicatedJob,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import (
    Availability,
    NodeState,
    PlacementStrategy,
    PublishMode,
    Reachability,
    Role,
    TaskState,
)

GIB = 1024**3


class FakeClock:
    """A clock that moves when told; `monotonic` moves with it."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


def counting_ids(prefix: str = "id") -> Iterator[str]:
    """Yield id1, id2, …"""
    return (f"{prefix}{n}" for n in count(1))


def a_cluster(id: str = "cluster1", *, spec: ClusterSpec | None = None, version: int = 1) -> Cluster:
    return Cluster(
        id=id,
        version=version,
        spec=spec or ClusterSpec(),
        root_ca=RootCA(join_tokens=JoinTokens(worker="SWMTKN-1-d-worker", manager="SWMTKN-1-d-manager")),
    )


def a_node(
    id: str = "n1",
    *,
    state: NodeState = NodeState.READY,
    availability: Availability = Availability.ACTIVE,
    role: Role = Role.WORKER,
    labels: Mapping[str, str] | None = None,
    engine_labels: Mapping[str, str] | None = None,
    hostname: str | None = None,
    cpus: float = 4,
    memory_bytes: int = 8 * GIB,
    pids: int = 0,
    generic: tuple[str, ...] = (),
    addr: str = "",
    version: int = 1,
) -> Node:
    return Node(
        id=id,
        version=version,
        spec=NodeSpec(role=role, availability=availability, labels=dict(labels or {})),
        description=NodeDescription(
            hostname=id if hostname is None else hostname,
            platform=Platform("x86_64", "linux"),
            resources=Resources(
                nano_cpus=round(cpus * 1e9), memory_bytes=memory_bytes, pids=pids, generic=parse_inventory(generic)
            ),
            engine_labels=dict(engine_labels or {}),
        ),
        status=NodeStatus(state=state, addr=addr),
        role=role,
        manager_status=ManagerStatus(raft_id=f"raft-{id}", reachability=Reachability.REACHABLE)
        if role is Role.MANAGER
        else None,
    )


def a_service_spec(
    name: str = "web",
    *,
    image: str = "registry.lab:5000/web:1",
    replicas: int = 1,
    is_global: bool = False,
    job: ReplicatedJob | GlobalJob | None = None,
    labels: Mapping[str, str] | None = None,
    constraints: tuple[str, ...] = (),
    max_replicas: int = 0,
    reserve_cpus: float = 0,
    reserve_memory_bytes: int = 0,
    reserve_pids: int = 0,
    reserve_generic: Mapping[str, int] | None = None,
    affinities: tuple[str, ...] = (),
    preferences: tuple[str, ...] = (),
    strategy: PlacementStrategy = PlacementStrategy.SPREAD,
    priority: int = 0,
    limits: Resources = Resources(),  # noqa: B008 - immutable
    ports: tuple[PortConfig, ...] = (),
    restart: RestartPolicy = RestartPolicy(),  # noqa: B008 - immutable
    update: UpdateConfig = UpdateConfig(),  # noqa: B008 - immutable
    move: MoveConfig = MoveConfig(),  # noqa: B008 - immutable
    schedule: CronSchedule | None = None,
    container: ContainerSpec | None = None,
) -> ServiceSpec:
    mode = ServiceMode(global_mode=GlobalMode()) if is_global else ServiceMode(replicated=ReplicatedMode(replicas))
    if isinstance(job, ReplicatedJob):
        mode = ServiceMode(replicated_job=job)
    elif job is not None:
        mode = ServiceMode(global_job=job)
    return ServiceSpec(
        name=name,
        labels=dict(labels or {}),
        task_template=TaskSpec(
            container_spec=replace(container, image=container.image or image) if container else ContainerSpec(image),
            resources=ResourceRequirements(
                limits,
                Resources(
                    nano_cpus=round(reserve_cpus * 1e9),
                    memory_bytes=reserve_memory_bytes,
                    pids=reserve_pids,
                    generic=tuple(GenericResource(kind, n) for kind, n in (reserve_generic or {}).items()),
                ),
            ),
            restart_policy=restart,
            placement=Placement(
                constraints=constraints,
                max_replicas=max_replicas,
                affinities=affinities,
                preferences=preferences,
                strategy=strategy,
                priority=priority,
            ),
        ),
        mode=mode,
        update_config=update,
        move_config=move,
        schedule=schedule,
        endpoint_spec=EndpointSpec(ports=ports),
    )


def a_port(published: int = 8080, target: int = 80, mode: PublishMode = PublishMode.HOST) -> PortConfig:
    return PortConfig(target_port=target, published_port=published, publish_mode=mode)


def a_service(
    id: str = "web",
    *,
    spec: ServiceSpec | None = None,
    spec_version: int = 1,
    version: int = 1,
    **of_spec: object,
) -> Service:
    """Return a service named after its id; further keywords are those of `a_service_spec`."""
    spec = spec or a_service_spec(**{"name": id, **of_spec})  # type: ignore[arg-type]
    return Service(id=id, version=version, spec=spec, spec_version=spec_version, ports=spec.endpoint_spec.ports)


def a_revision(service: Service, *, spec_version: int | None = None, version: int = 1) -> Revision:
    """Return the revision holding the service's present task template."""
    number = service.spec_version if spec_version is None else spec_version
    return Revision(
        id=revision_id(service.id, number),
        version=version,
        service_id=service.id,
        spec_version=number,
        task_template=service.spec.task_template,
        ports=service.ports,
        service_name=service.spec.name,
    )


def a_task(
    id: str = "t1",
    *,
    service: Service | str = "web",
    slot: int = 1,
    node: Node | str = "",
    state: TaskState = TaskState.RUNNING,
    desired: TaskState = TaskState.RUNNING,
    spec_version: int | None = None,
    since: float = 0.0,
    created_at: float = 0.0,
    err: str = "",
    start_after: float = 0.0,
    version: int = 1,
) -> Task:
    """Return a task; `since` is when it entered `state`."""
    of_service = service.spec_version if isinstance(service, Service) else 1
    return Task(
        id=id,
        version=version,
        created_at=created_at,
        service_id=service.id if isinstance(service, Service) else service,
        slot=slot,
        node_id=node.id if isinstance(node, Node) else node,
        spec_version=of_service if spec_version is None else spec_version,
        status=TaskStatus(state=state, timestamp=since, err=err),
        desired_state=desired,
        start_after=start_after,
    )
