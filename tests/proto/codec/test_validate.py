"""Specs are judged by Swarm's rules, all problems at once, each with a remedy."""

from collections.abc import Mapping
from typing import Any

import pytest
from lib.builders import a_port, a_service_spec
from msgspec.structs import replace

from pyswarm.proto.codec.constraint import Constraint, parse_constraint, parse_preference
from pyswarm.proto.codec.validate import validate_cluster_spec, validate_node_spec, validate_service_spec
from pyswarm.proto.errors import InvalidArgument, InvalidReference
from pyswarm.proto.model.resources import GenericResource, ResourceRequirements, Resources
from pyswarm.proto.model.spec import (
    ClusterSpec,
    ConfigReference,
    ContainerSpec,
    EndpointSpec,
    FileTarget,
    GlobalJob,
    GlobalMode,
    Mount,
    NodeSpec,
    Placement,
    PortConfig,
    ReplicatedJob,
    ReplicatedMode,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import (
    Availability,
    FailureAction,
    MountType,
    PlacementStrategy,
    PublishMode,
    RestartCondition,
    Role,
    UpdateOrder,
)

MIB = 1024**2


def in_place(name: str, signal: str) -> SecretReference:
    return SecretReference(secret_name=name, file=FileTarget(in_place=True, signal=signal))


def with_container(**fields: Any) -> ServiceSpec:
    return a_service_spec(container=ContainerSpec(**fields))


def with_resources(*, limits: Resources = Resources(), reservations: Resources = Resources()) -> ServiceSpec:  # noqa: B008
    spec = a_service_spec()
    requirements = ResourceRequirements(limits, reservations)
    return replace(spec, task_template=replace(spec.task_template, resources=requirements))


def with_placement(**fields: Any) -> ServiceSpec:
    spec = a_service_spec()
    return replace(spec, task_template=replace(spec.task_template, placement=Placement(**fields)))


def with_image(image: str) -> ServiceSpec:
    spec = a_service_spec()
    return replace(spec, task_template=replace(spec.task_template, container_spec=ContainerSpec(image)))


GOOD: Mapping[str, ServiceSpec] = {
    "a plain service": a_service_spec(),
    "a global service": a_service_spec(is_global=True),
    "zero replicas": a_service_spec(replicas=0),
    "the shortest name": a_service_spec("a"),
    "the longest name": a_service_spec("a" * 63),
    "dashes and underscores inside a name": a_service_spec("Web-1__b"),
    "the smallest resources": with_resources(limits=Resources(1_000_000, 4 * MIB, 1)),
    "one port for tcp and udp": a_service_spec(
        ports=(a_port(53), PortConfig(protocol="udp", target_port=53, published_port=53))
    ),
    "two ports left to the allocator": a_service_spec(ports=(a_port(0, 80), a_port(0, 81))),
    "no delays at all": replace(
        a_service_spec(restart=RestartPolicy(delay_seconds=0)), update_config=UpdateConfig(parallelism=0)
    ),
    "a bind mount": with_container(mounts=(Mount(source="/srv", target="/data"),)),
    "a real-time signal": with_container(stop_signal="SIGRTMIN+3"),
    "capabilities with and without prefix": with_container(capability_add=("CAP_NET_ADMIN", "sys_time", "ALL")),
}


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_a_sound_spec_is_accepted(spec: ServiceSpec) -> None:
    validate_service_spec(spec)


BAD: list[tuple[str, ServiceSpec]] = [
    ("name is missing", a_service_spec("")),
    ("64 characters", a_service_spec("a" * 64)),
    ("DNS name", a_service_spec("-web")),
    ("DNS name", a_service_spec("web.1")),
    ("DNS name", a_service_spec("wéb")),
    ("is no label", a_service_spec(labels={"": "x"})),
    ("image is missing", with_image("")),
    ("capital letters", with_image("Web")),
    ("CPU limit is 0.0005", with_resources(limits=Resources(nano_cpus=500_000))),
    ("CPU reservation is -1", with_resources(reservations=Resources(nano_cpus=-(10**9)))),
    ("memory reservation is 1000 bytes", with_resources(reservations=Resources(memory_bytes=1000))),
    ("pids limit is -1", with_resources(limits=Resources(pids=-1))),
    ("is reserved twice", with_resources(reservations=Resources(generic=(GenericResource("gpu", 1),) * 2))),
    ("cannot be limited", with_resources(limits=Resources(generic=(GenericResource("gpu", 1),)))),
    ("is not a number of pieces", with_resources(reservations=Resources(generic=(GenericResource("gpu", name="a"),)))),
    ("is no affinity", with_placement(affinities=("web",))),
    ("has no 'node'", with_placement(affinities=("node==web",))),
    ("names no label", with_placement(affinities=("service==web@zone",))),
    (
        "does not go with bin packing",
        with_placement(strategy=PlacementStrategy.BINPACK, preferences=("node.labels.zone",)),
    ),
    ("the priority is 5000", with_placement(priority=5000)),
    ("neither == nor !=", a_service_spec(constraints=("node.role=manager",))),
    ("has no 'node.colour'", a_service_spec(constraints=("node.colour==red",))),
    ("max replicas per node is -1", a_service_spec(max_replicas=-1)),
    ("it has no mode", replace(a_service_spec(), mode=ServiceMode())),
    ("it has 2 modes", replace(a_service_spec(), mode=ServiceMode(ReplicatedMode(), GlobalMode()))),
    (
        "environment entry A: the placeholder {{.Service.Nme}} is unknown",
        a_service_spec(container=ContainerSpec(env=("A={{.Service.Nme}}",))),
    ),
    (
        "the hostname: the placeholder {{printf}} is unknown",
        a_service_spec(container=ContainerSpec(hostname="{{printf}}-{{.Task.Slot}}")),
    ),
    ("replicas is -1", a_service_spec(replicas=-1)),
    ("a job with 0 tasks to complete", a_service_spec(job=ReplicatedJob(0, 0))),
    ("max concurrent is -1", a_service_spec(job=ReplicatedJob(-1, 1))),
    (
        "update and rollback settings do not go with a job",
        a_service_spec(job=GlobalJob(), update=UpdateConfig(parallelism=2)),
    ),
    ("replicas is 1000000000", a_service_spec(replicas=10**9)),
    ("restart delay is -1", a_service_spec(restart=RestartPolicy(delay_seconds=-1))),
    ("restart delay is nan", a_service_spec(restart=RestartPolicy(delay_seconds=float("nan")))),
    ("restart condition is not set", a_service_spec(restart=RestartPolicy(condition=RestartCondition.UNSET))),
    ("update order is not set", a_service_spec(update=UpdateConfig(order=UpdateOrder.UNSET))),
    ("update failure ratio is 2", a_service_spec(update=UpdateConfig(max_failure_ratio=2))),
    ("update monitor is inf", a_service_spec(update=UpdateConfig(monitor_seconds=float("inf")))),
    (
        "cannot roll back again",
        replace(a_service_spec(), rollback_config=UpdateConfig(failure_action=FailureAction.ROLLBACK)),
    ),
    ("published twice", a_service_spec(ports=(a_port(80, 80), a_port(80, 81)))),
    ("target port is out of range", a_service_spec(ports=(a_port(80, 0),))),
    ("published port is out of range", a_service_spec(ports=(a_port(65536, 80),))),
    ("unknown protocol", a_service_spec(ports=(PortConfig(protocol="TCP", target_port=1),))),
    (
        "does not have",
        replace(
            a_service_spec(),
            endpoint_spec=EndpointSpec("dnsrr", (PortConfig(target_port=1, publish_mode=PublishMode.INGRESS),)),
        ),
    ),
    ("endpoint mode 'lb'", replace(a_service_spec(), endpoint_spec=EndpointSpec("lb"))),
    ("no name or no =", with_container(env=("PATH",))),
    ("NUL", with_container(args=("a\0b",))),
    ("is relative", with_container(dir="srv")),
    ("is no hostname", with_container(hostname="a b")),
    ("stop signal 'SIGFOO'", with_container(stop_signal="SIGFOO")),
    ("stop signal '99'", with_container(stop_signal="99")),
    ("grace period is -1", with_container(stop_grace_period_seconds=-1)),
    ("unknown signal 'SIGFOO'", with_container(secrets=(in_place("key", "SIGFOO"),))),
    ("by replacing tasks", with_container(secrets=(replace(in_place("key", "1"), file=FileTarget(signal="1")),))),
    (
        "in the container's root",
        with_container(configs=(ConfigReference(config_name="site", file=FileTarget(in_place=True)),)),
    ),
    ("capability 'NET_ADMINN'", with_container(capability_add=("NET_ADMINN",))),
    ("not absolute", with_container(mounts=(Mount(source="/a", target="b"),))),
    ("not absolute", with_container(mounts=(Mount(source="/a", target="/b/../../etc"),))),
    ("container's root", with_container(mounts=(Mount(source="/a", target="//"),))),
    ("two mounts", with_container(mounts=(Mount(source="/a", target="/b"), Mount(source="/c", target="/b/")))),
    ("bind mount at /b", with_container(mounts=(Mount(source="a", target="/b"),))),
    ("has a source", with_container(mounts=(Mount(MountType.TMPFS, "/a", "/b"),))),
]


@pytest.mark.parametrize(("told", "spec"), BAD, ids=[f"{n} {told}" for n, (told, _) in enumerate(BAD)])
def test_an_unsound_spec_is_refused_with_cause_and_remedy(told: str, spec: ServiceSpec) -> None:
    with pytest.raises(InvalidArgument) as raised:
        validate_service_spec(spec)
    assert told in raised.value.message
    assert "problems" not in raised.value.message, "one mistake is one problem"
    assert raised.value.remedy


def test_a_bad_image_alone_is_an_invalid_reference() -> None:
    with pytest.raises(InvalidReference):
        validate_service_spec(with_image("Web"))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidArgument) as raised:
        validate_service_spec(a_service_spec("web", replicas=-1, constraints=("x",), image="A"))
    assert raised.value.message.startswith("service web has 3 problems:\n  - image reference 'A'")
    assert len(raised.value.message.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("node.role==manager", Constraint("node.role", True, "manager")),
        ("node.labels.Zone != a==b", None),
        ("node.labels.Zone!=a", Constraint("node.labels.Zone", False, "a")),
        (" NODE.Hostname == w1 ", Constraint("node.hostname", True, "w1")),
        ("engine.labels.disk.type==ssd", Constraint("engine.labels.disk.type", True, "ssd")),
        ("node.role==boss", None),
        ("node.labels.==a", None),
        ("node.id==", None),
        ("==a", None),
    ],
)
def test_constraints_are_read_as_swarm_reads_them(text: str, meant: Constraint | None) -> None:
    if meant is None:
        with pytest.raises(InvalidArgument):
            parse_constraint(text)
    else:
        assert parse_constraint(text) == meant
        assert parse_constraint(str(meant)) == meant


def test_preferences_name_a_label() -> None:
    assert parse_preference("spread=node.labels.zone") == "node.labels.zone"
    assert parse_preference("engine.labels.rack") == "engine.labels.rack"
    with pytest.raises(InvalidArgument, match="names no label"):
        parse_preference("spread=node.hostname")


def test_node_and_cluster_specs() -> None:
    validate_node_spec(NodeSpec(labels={"zone": "a"}))
    validate_cluster_spec(ClusterSpec())
    for bad in (NodeSpec(role=Role.UNSET), NodeSpec(availability=Availability.UNSET), NodeSpec(labels={"a b": ""})):
        with pytest.raises(InvalidArgument):
            validate_node_spec(bad)
    for wrong in (
        ClusterSpec(node_cert_expiry_seconds=3599),
        ClusterSpec(node_cert_expiry_seconds=float("nan")),
        ClusterSpec(heartbeat_period_seconds=0),
    ):
        with pytest.raises(InvalidArgument):
            validate_cluster_spec(wrong)
