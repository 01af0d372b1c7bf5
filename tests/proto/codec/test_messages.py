"""Records and messages hold the same, and nothing is lost or invented between them."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_cluster, a_service, a_service_spec, a_task
from msgspec import Struct
from msgspec.structs import replace

from pyswarm.proto.codec.messages import NOT_SENT, check_match, from_message, to_message
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model import objects, resources, spec, states
from pyswarm.proto.model.objects import Cluster, Node, Revision, RootCA, Service, Task
from pyswarm.proto.model.spec import (
    ContainerSpec,
    ReplicatedMode,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import types_pb2

RECORDS: dict[str, type[Struct]] = {
    name: cls
    for module in (resources, spec, objects)
    for name, cls in vars(module).items()
    if inspect.isclass(cls) and issubclass(cls, Struct) and cls is not Struct
}
ENUMS = {name: cls for name, cls in vars(states).items() if inspect.isclass(cls) and cls.__module__ == states.__name__}


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Return every value a field may hold on the wire."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=2).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(max_size=3), values_of(args[1]), max_size=2)
    if args:  # X | None
        return st.none() | values_of(next(a for a in args if a is not type(None)))
    if issubclass(annotation, Struct):
        return records_of(annotation)
    if annotation.__name__ in ENUMS:
        return st.sampled_from(list(annotation))
    return {
        str: st.text(max_size=4),
        bool: st.booleans(),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False),
    }[annotation]


def records_of(cls: type[Struct]) -> st.SearchStrategy[Any]:
    hidden = NOT_SENT.get(cls, frozenset())
    fields = {f.name: values_of(f.type) for f in msgspec.structs.fields(cls) if f.name not in hidden}
    return st.builds(cls, **fields)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_record_and_message_have_the_same_fields_and_types(name: str) -> None:
    check_match(RECORDS[name], getattr(types_pb2, name).DESCRIPTOR)


def test_every_message_of_the_model_has_a_record() -> None:
    assert set(types_pb2.DESCRIPTOR.message_types_by_name) == set(RECORDS)


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_enumerations_mean_the_same_by_every_number(name: str) -> None:
    wire = {v.number: v.name for v in types_pb2.DESCRIPTOR.enum_types_by_name[name].values}
    assert set(wire) == {int(v) for v in ENUMS[name]}
    # A protobuf file has one namespace for the values of all its enumerations: some carry a prefix there.
    for value in ENUMS[name]:
        assert wire[int(value)].endswith(value.name)


def test_only_what_is_listed_stays_in_the_store() -> None:
    assert {RootCA: {"key_pem"}, Cluster: {"blacklist", "unlock_key"}, SecretSpec: {"data"}} == NOT_SENT
    sent = to_message(
        replace(
            a_cluster(),
            root_ca=RootCA(certificate_pem="C", key_pem="SECRET"),
            blacklist={"n9": 1.0},
            unlock_key=b"SECRET",
        ),
        types_pb2.Cluster,
    )
    assert b"SECRET" not in sent.SerializeToString()
    assert from_message(sent, Cluster).blacklist == {}


@pytest.mark.parametrize("cls", [Service, Task, Node, Revision, Cluster])
def test_a_round_trip_over_the_wire_is_exact(cls: type[Struct]) -> None:
    message_class = getattr(types_pb2, cls.__name__)

    @settings(max_examples=40, deadline=None)
    @given(records_of(cls))
    def check(record: Struct) -> None:
        wire = to_message(record, message_class).SerializeToString()
        assert from_message(message_class.FromString(wire), cls) == record

    check()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_defaults_survive_a_round_trip(name: str) -> None:
    cls = RECORDS[name]
    required = {f.name: "x" for f in msgspec.structs.fields(cls) if f.required}
    record = cls(**required)
    assert from_message(to_message(record, getattr(types_pb2, name)), cls) == record


def test_an_explicit_zero_stays_zero() -> None:
    sent = a_service_spec(
        container=ContainerSpec("i", stop_grace_period_seconds=0), restart=RestartPolicy(delay_seconds=0)
    )
    arrived = from_message(to_message(sent, types_pb2.ServiceSpec), ServiceSpec)
    assert arrived.task_template.container_spec.stop_grace_period_seconds == 0
    assert arrived.task_template.restart_policy.delay_seconds == 0


def test_a_section_that_is_not_set_has_the_models_defaults() -> None:
    arrived = from_message(types_pb2.ServiceSpec(name="web"), ServiceSpec)
    assert arrived == ServiceSpec(name="web")
    assert arrived.update_config.parallelism == 1


def test_presence_of_an_optional_section_is_kept() -> None:
    empty = ServiceMode(replicated=ReplicatedMode(0))
    assert from_message(to_message(empty, types_pb2.ServiceMode), ServiceMode) == empty
    assert from_message(to_message(ServiceMode(), types_pb2.ServiceMode), ServiceMode) == ServiceMode()


def test_an_enumeration_value_from_the_future_is_refused_with_a_remedy() -> None:
    message = to_message(a_task(), types_pb2.Task)
    message.desired_state = 9999
    with pytest.raises(InvalidArgument, match="9999"):
        from_message(message, Task)


@pytest.mark.parametrize("bad", [TaskSpec(force_update=2**63), TaskSpec(ContainerSpec(image="\ud800"))])
def test_a_value_that_does_not_fit_the_wire_is_refused(bad: TaskSpec) -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent"):
        to_message(bad, types_pb2.TaskSpec)


def test_records_that_do_not_match_are_a_fault() -> None:
    class Platform(Struct, frozen=True):
        architecture: str = ""

    with pytest.raises(TypeError, match="differ in os"):
        from_message(types_pb2.Platform(), Platform)


def test_what_arrives_is_made_of_plain_immutable_parts() -> None:
    def parts(value: Any) -> Iterator[Any]:
        yield value
        if isinstance(value, Struct):
            for name in value.__struct_fields__:
                yield from parts(getattr(value, name))
        elif isinstance(value, tuple):
            for item in value:
                yield from parts(item)

    arrived = from_message(to_message(a_service("web", constraints=("node.role==worker",)), types_pb2.Service), Service)
    allowed = (Struct, tuple, str, int, float, bool, dict, type(None))
    assert all(isinstance(part, allowed) for part in parts(arrived))
    assert type(from_message(to_message(a_task(), types_pb2.Task), Task).desired_state) is TaskState
