"""A stack is deployed, rolled back and removed as one: all of it or nothing."""

import pytest
from lib.builders import a_port, a_service, a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.orchestrator.stacks import apply_stack, remove_stack, rollback_stack
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, NotFound, SwarmError
from pyswarm.proto.model.objects import STACK_LABEL
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import PublishMode


def of_shop(name: str, **more: object) -> ServiceSpec:
    return a_service_spec(f"shop_{name}", labels={STACK_LABEL: "shop"}, **more)  # type: ignore[arg-type]


def deploy(world: World, *specs: ServiceSpec, prune: bool = False) -> dict[str, str]:
    plan, outcome = apply_stack(world.seen, "shop", specs, prune=prune, new_id=world.new_id)
    world.apply(plan.changes)
    return {change.name: change.action for change in outcome}


def roll_back(world: World) -> dict[str, str]:
    plan, outcome = rollback_stack(world.seen, "shop", new_id=world.new_id)
    world.apply(plan.changes)
    return {change.name: change.action for change in outcome}


def names(world: World) -> set[str]:
    return {service.spec.name for service in world.seen.services()}


def image(world: World, name: str) -> str:
    return world.service(name).spec.task_template.container_spec.image


def test_a_rollback_goes_back_to_the_deploy_before_with_all_its_services():
    world = World()
    deploy(world, of_shop("web", image="r/web:1"), of_shop("old", image="r/old:1"))
    deploy(world, of_shop("web", image="r/web:2"), of_shop("new", image="r/new:1"), prune=True)
    world.settle()
    assert names(world) == {"shop_web", "shop_new"}
    assert roll_back(world) == {"shop_web": "updated", "shop_old": "created", "shop_new": "removed"}
    world.settle()
    assert names(world) == {"shop_web", "shop_old"}
    assert image(world, "shop_web") == "r/web:1"
    assert len(world.running("shop_old")) == 1


def test_a_second_rollback_undoes_the_first():
    world = World()
    deploy(world, of_shop("web", image="r/web:1"))
    deploy(world, of_shop("web", image="r/web:2"))
    roll_back(world)
    roll_back(world)
    assert image(world, "shop_web") == "r/web:2"


def test_a_deploy_that_changes_nothing_leaves_what_there_is_to_go_back_to():
    world = World()
    deploy(world, of_shop("web", image="r/web:1"))
    deploy(world, of_shop("web", image="r/web:2"))
    version = world.seen.version
    assert deploy(world, of_shop("web", image="r/web:2")) == {"shop_web": "unchanged"}
    assert world.seen.version == version
    roll_back(world)
    assert image(world, "shop_web") == "r/web:1"


def test_a_rollback_also_takes_back_what_was_changed_by_hand_meanwhile():
    world = World()
    deploy(world, of_shop("web", image="r/web:1"))
    deploy(world, of_shop("web", image="r/web:2"))
    world.scale("shop_web", 5)
    roll_back(world)
    assert world.service("shop_web").spec == of_shop("web", image="r/web:1")


def test_there_is_nothing_to_go_back_to_after_the_first_deploy():
    world = World()
    with pytest.raises(NotFound):
        roll_back(world)
    deploy(world, of_shop("web"))
    with pytest.raises(FailedPrecondition, match="deployed once"):
        roll_back(world)


def test_one_service_that_is_refused_refuses_all():
    world = World()
    world.create(a_service_spec("taken"))
    before = world.seen
    with pytest.raises(AlreadyExists):
        deploy(world, of_shop("web"), replace(a_service_spec("taken"), labels={STACK_LABEL: "shop"}))
    port = a_port(8080, mode=PublishMode.INGRESS)
    with pytest.raises(SwarmError, match="8080"):
        deploy(world, of_shop("web", ports=(port,)), of_shop("api", ports=(port,)))
    assert world.seen is before


def test_a_stack_is_forgotten_when_it_is_removed():
    world = World()
    deploy(world, of_shop("web"))
    deploy(world, of_shop("web", image="r/web:2"))
    world.apply(remove_stack(world.seen, "shop")[0].changes)
    world.settle()
    assert world.seen.stack("shop") is None
    assert names(world) == set()
    deploy(world, of_shop("web"))
    with pytest.raises(SwarmError):
        roll_back(world)


def test_a_stack_of_before_stacks_were_remembered_can_be_removed_and_deployed():
    world = World()
    world.create(of_shop("web"))
    assert deploy(world, of_shop("web", image="r/web:2")) == {"shop_web": "updated"}
    assert world.seen.stack("shop") is not None
    assert a_service("x").stack == ""
