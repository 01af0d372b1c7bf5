"""Affinities, strategy, priority and generic resources in a stack file."""

import pytest

from pyswarm.proto.codec.stack_file import parse_stack
from pyswarm.proto.errors import InvalidStackFile
from pyswarm.proto.model.resources import GenericResource
from pyswarm.proto.model.spec import MoveConfig, ServiceSpec
from pyswarm.proto.model.states import PlacementStrategy, UpdateOrder

TWO = """services:
  web:
    image: web:1
    deploy:
      resources:
        reservations:
          pids: 50
          generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]
      placement: {affinities: [PLACEHOLDER], strategy: binpack, priority: -5}
  db: {image: db:1}
"""


def web(affinity: str = "service!=db@node.labels.zone") -> ServiceSpec:
    text = TWO.replace("PLACEHOLDER", f'"{affinity}"')
    return parse_stack([("shop.yaml", text)], stack="shop", environment={}).services[0]


def test_placement_and_reservations_are_read():
    template = web().task_template
    assert template.resources.reservations.pids == 50
    assert template.resources.reservations.generic == (GenericResource("gpu", 2),)
    assert template.placement.strategy is PlacementStrategy.BINPACK
    assert template.placement.priority == -5


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("service!=db@node.labels.zone", "service!=shop_db@node.labels.zone", id="of the same file"),
        pytest.param("service == db", "service ==shop_db", id="spaces do not matter"),
        pytest.param("service!=other_db", "service!=other_db", id="of another stack"),
        pytest.param("service.labels.tier==db", "service.labels.tier==db", id="a label"),
    ],
)
def test_services_of_the_same_file_are_meant_by_their_short_names(written: str, meant: str):
    assert web(written).task_template.placement.affinities == (meant,)


def test_an_affinity_that_is_none_is_refused_with_its_service():
    with pytest.raises(InvalidStackFile, match=r"shop\.yaml:\d+:\d+.*services\.web.*'db' is no affinity"):
        web("db")


def test_a_generic_resource_with_an_unknown_key_is_refused():
    text = TWO.replace("PLACEHOLDER", "").replace("value: 2", "count: 2")
    with pytest.raises(InvalidStackFile, match="unknown key"):
        parse_stack([("shop.yaml", text)], stack="shop", environment={})


def test_how_tasks_are_moved_is_read():
    text = TWO.replace("PLACEHOLDER", "").replace(
        "  db: {image: db:1}",
        "  db: {image: db:1, deploy: {move_config: {parallelism: 2, order: stop-first, rebalance: auto}}}",
    )
    _, db = parse_stack([("shop.yaml", text)], stack="shop", environment={}).services
    assert db.move_config == MoveConfig(2, UpdateOrder.STOP_FIRST, True)
