"""What a node says of itself, and what its tasks are told of the pieces they got."""

import pytest
from lib.builders import a_service, a_task
from msgspec.structs import replace

from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.resources import GenericResource
from pyswarm.worker.agent.container_config import container_config
from pyswarm.worker.agent.describe import declared_in, describe_node
from pyswarm.worker.agent.journal import Accepted


def test_a_node_tells_the_labels_and_resources_of_its_configuration():
    settings = {"labels": ["disk=ssd", "edge"], "node-generic-resources": ["gpu=g2", "gpu=g1", "licence=3"]}
    told = describe_node(declared_in(settings))
    assert told.engine_labels == {"disk": "ssd", "edge": ""}
    assert told.resources.generic == (
        GenericResource("gpu", name="g1"),
        GenericResource("gpu", name="g2"),
        GenericResource("licence", 3),
    )
    assert told.resources.pids > 100


@pytest.mark.parametrize(
    "settings", [{"labels": "disk=ssd"}, {"labels": ["=ssd"]}, {"node-generic-resources": ["gpu"]}, {"labels": [1]}]
)
def test_a_configuration_that_cannot_be_read_is_refused(settings: dict[str, object]):
    with pytest.raises(InvalidArgument):
        declared_in(settings)


def test_a_container_is_told_which_pieces_its_task_got():
    train = a_service("train", reserve_generic={"gpu": 2, "licence": 1})
    pieces = (GenericResource("gpu", name="g1"), GenericResource("gpu", name="g4"), GenericResource("licence", 1))
    task = replace(a_task("t", service=train), assigned_generic=pieces)
    accepted = Accepted(task, train.spec.task_template, service_name="train")
    config = container_config(accepted, node_id="n1", node=NodeDescription(), namespace="")
    assert list(config.env) == ["DOCKER_RESOURCE_GPU=g1,g4", "DOCKER_RESOURCE_LICENCE=1"]
