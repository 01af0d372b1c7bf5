"""The flags that place tasks, beyond those of Docker."""

from typing import Any

from lib.builders import a_service

from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.model.resources import GenericResource
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import PlacementStrategy
from pyswarm.proto.v1 import control_pb2 as pb


def test_placement_flags_are_given_and_changed(pyswarm: Any, control: Any):
    pyswarm.ok(
        *("service", "create", "-d", "--name", "web", "--affinity", "service!=db", "--generic-resource", "gpu=2"),
        *("--strategy", "binpack", "--priority", "-3", "--reserve-pids", "50", "web:1"),
    )
    spec = from_message(control.asked(pb.CreateServiceRequest).spec, ServiceSpec)
    reserved, placement = spec.task_template.resources.reservations, spec.task_template.placement
    assert (reserved.pids, reserved.generic) == (50, (GenericResource("gpu", 2),))
    assert placement.affinities == ("service!=db",)
    assert (placement.strategy, placement.priority) == (PlacementStrategy.BINPACK, -3)
    pyswarm.ok(
        *("service", "update", "-d", "--affinity-add", "service==c", "--affinity-rm", "service!=db", "web"),
        *("--generic-resource-add", "tpu=1", "--generic-resource-rm", "gpu", "--strategy", "spread"),
    )
    spec = from_message(control.asked(pb.UpdateServiceRequest).spec, ServiceSpec)
    assert spec.task_template.resources.reservations.generic == (GenericResource("tpu", 1),)
    assert spec.task_template.placement.affinities == ("service==c",)
    assert spec.task_template.placement.strategy is PlacementStrategy.SPREAD


def test_placement_is_shown_to_people(pyswarm: Any, control: Any):
    control.add(a_service("web", affinities=("service!=db",), priority=4, reserve_generic={"gpu": 2}))
    shown = pyswarm.ok("service", "inspect", "--pretty", "web")
    for line in ("Affinities:", "service!=db", "Priority:", "gpu=2"):
        assert line in shown


def test_a_generic_resource_that_is_no_number_is_refused(pyswarm: Any, control: Any):
    said = pyswarm.fails("service", "create", "-d", "--name", "web", "--generic-resource", "gpu=a", "web:1")
    assert "is not a number of pieces" in said
