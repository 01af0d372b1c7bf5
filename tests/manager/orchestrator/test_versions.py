"""New versions of secrets and configs: services roll over to them, and old ones go when nobody needs them any more."""

import pytest
from lib.builders import a_service_spec
from lib.world import World
from msgspec.structs import replace

from pyswarm.manager.dispatcher.assignments import assignments_of
from pyswarm.manager.orchestrator.secrets import create_payload, newest_config, newest_secret, remove_payload
from pyswarm.manager.orchestrator.services import update_service
from pyswarm.manager.orchestrator.stacks import apply_stack
from pyswarm.manager.orchestrator.versions import Rotation, prune_payloads, rotate_payload
from pyswarm.proto.errors import AlreadyExists, InvalidArgument
from pyswarm.proto.model.objects import Secret
from pyswarm.proto.model.spec import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    Mount,
    SecretReference,
    SecretSpec,
)
from pyswarm.proto.model.states import UpdateState


@pytest.fixture
def world() -> World:
    """A secret and a config in their first version, used by two services; a third uses none."""
    world = World(nodes=2)
    for spec in (SecretSpec("key", {}, b"1"), ConfigSpec("site", {}, b"1")):
        world.apply(create_payload(world.seen, spec, new_id=world.new_id).changes)
    used = ContainerSpec(secrets=(SecretReference(secret_name="key"),))
    world.create(a_service_spec("web", replicas=2, container=used))
    world.create(a_service_spec("api", container=replace(used, configs=(ConfigReference(config_name="site"),))))
    world.create(a_service_spec("other"))
    world.settle()
    return world


def rotate(world: World, data: bytes, name: str = "key") -> Rotation:
    payload = newest_secret(world.seen, name) or newest_config(world.seen, name)
    assert payload is not None
    plan, rotation = rotate_payload(world.seen, payload, data, new_id=world.new_id)
    world.apply(plan.changes)
    return rotation


def names(world: World) -> list[str]:
    return [secret.spec.name for secret in sorted(world.seen.secrets(), key=lambda s: s.spec.name)]


def used_by(world: World, service: str) -> SecretReference:
    return world.service(service).spec.task_template.container_spec.secrets[0]


def test_services_that_use_it_are_updated_and_find_it_at_the_same_place(world: World):
    before = used_by(world, "web").path
    rotation = rotate(world, b"2")
    assert rotation.payload.spec.name == "key.2"
    assert {world.seen.service(id).spec.name for id in rotation.service_ids} == {"web", "api"}  # type: ignore[union-attr]
    world.settle()
    assert (used_by(world, "web").secret_name, used_by(world, "web").path) == ("key.2", before)
    assert all(t.spec_version == 2 for t in world.running("web"))
    assert all(t.spec_version == 1 for t in world.running("other"))


def test_the_same_content_again_changes_nothing(world: World):
    rotate(world, b"2")
    version = world.seen.version
    assert rotate(world, b"2").service_ids == ()
    assert world.seen.version == version


def test_a_rollback_finds_the_version_before_and_older_ones_go_by_themselves(world: World):
    rotate(world, b"2")
    world.settle()
    assert names(world) == ["key", "key.2"]
    rotate(world, b"3")
    world.settle()
    rotate(world, b"4")
    world.settle()
    # Two are current and previous; one more may have been needed by a task while the last one was made.
    assert "key" not in names(world)
    assert names(world)[-2:] == ["key.3", "key.4"]
    web = world.service("web")
    world.apply(update_service(world.seen, web.id, web.version, web.spec, rollback=True).changes)
    world.settle()
    assert used_by(world, "web").secret_name == "key.3"


def test_a_name_means_its_newest_version_even_when_the_first_is_gone(world: World):
    for data in (b"2", b"3", b"4"):
        rotate(world, data)
        world.settle()
    assert world.seen.secret_by_name("key") is None
    world.create(a_service_spec("new", container=ContainerSpec(secrets=(SecretReference(secret_name="key"),))))
    reference = used_by(world, "new")
    assert (reference.secret_name, reference.path) == ("key.4", "/run/secrets/key")
    with pytest.raises(AlreadyExists, match=r"key\.4"):
        create_payload(world.seen, SecretSpec("key", {}, b"x"), new_id=world.new_id)


def test_pruning_removes_old_versions_that_nobody_needs_and_no_others(world: World):
    rotate(world, b"2")
    world.settle()
    plan, gone = prune_payloads(world.seen, "secret", everything=False)
    assert (plan.changes, gone) == ((), ())  # a rollback may need it
    for service in ("web", "api"):
        found = world.service(service)
        world.apply(update_service(world.seen, found.id, 0, replace(found.spec, labels={"touched": "1"})).changes)
    world.settle()
    plan, gone = prune_payloads(world.seen, "secret", everything=False)
    assert gone == ("key",)
    world.apply(plan.changes)
    assert names(world) == ["key.2"]


def test_pruning_everything_removes_what_no_service_uses(world: World):
    world.apply(create_payload(world.seen, SecretSpec("spare", {}, b"x"), new_id=world.new_id).changes)
    assert prune_payloads(world.seen, "secret", everything=False)[1] == ()
    assert prune_payloads(world.seen, "secret", everything=True)[1] == ("spare",)


def test_configs_have_versions_as_well(world: World):
    rotation = rotate(world, b"2", name="site")
    assert rotation.payload.spec.name == "site.2"
    assert [world.seen.service(id).spec.name for id in rotation.service_ids] == ["api"]  # type: ignore[union-attr]


def test_a_stack_is_deployed_again_with_the_newest_version_of_its_secret(world: World):
    label = {"com.docker.stack.namespace": "shop"}
    container = ContainerSpec(secrets=(SecretReference(secret_name="shop_key"),))
    spec = replace(a_service_spec("shop_web", container=container), labels=label)

    def deploy(data: bytes) -> dict[str, str]:
        payloads = [SecretSpec("shop_key", label, data)]
        plan, told = apply_stack(world.seen, "shop", [spec], payloads=payloads, prune=False, new_id=world.new_id)
        world.apply(plan.changes)
        return {change.name: change.action for change in told}

    deploy(b"1")
    rotate(world, b"2", name="shop_key")
    assert deploy(b"2") == {"shop_web": "unchanged"}
    with pytest.raises(InvalidArgument, match="another content"):
        deploy(b"1")


def test_what_a_version_is_used_by_keeps_it_from_being_removed(world: World):
    rotate(world, b"2")
    secret = newest_secret(world.seen, "key")
    assert isinstance(secret, Secret)
    with pytest.raises(Exception, match="in use by the following services: api, web"):
        remove_payload(world.seen, secret)


# -- in place

IN_PLACE = FileTarget(in_place=True, signal="SIGHUP")


@pytest.fixture
def steady(world: World) -> World:
    """A service, `steady`, that has the secret's new versions put in place."""
    container = ContainerSpec(secrets=(SecretReference(secret_name="key", file=IN_PLACE),))
    world.create(a_service_spec("steady", replicas=2, container=container))
    world.settle()
    return world


def held(world: World, service: str) -> set[str]:
    """Return the names of the secrets that the running tasks of a service hold."""
    found: set[str] = set()
    for task in world.running(service):
        secrets = [p for p in assignments_of(world.seen, task.node_id).payloads.values() if isinstance(p, Secret)]
        assigned = assignments_of(world.seen, task.node_id).tasks[task.id]
        names = {r.secret_name for r in assigned.revision.task_template.container_spec.secrets}
        assert names <= {secret.spec.name for secret in secrets}
        found |= names
    return found


def test_where_a_service_asks_for_it_a_new_version_restarts_nothing_and_is_told_to_the_tasks_that_run(steady: World):
    before = {t.id for t in steady.running("steady")}
    rotation = rotate(steady, b"2")
    assert steady.service("steady").id in rotation.service_ids
    steady.settle()
    assert {t.id for t in steady.running("steady")} == before
    assert held(steady, "steady") == {"key.2"}
    assert steady.service("steady").update_status.state is UpdateState.COMPLETED
    assert all(t.spec_version == 2 for t in steady.running("web")), "who does not ask for it is updated"


def test_a_version_that_was_replaced_in_place_may_go_although_tasks_of_its_time_run(steady: World):
    before = {t.id for t in steady.running("steady")}
    for data in (b"2", b"3", b"4"):
        rotate(steady, data)
        steady.settle()
    assert {t.id for t in steady.running("steady")} == before
    assert names(steady) == ["key.3", "key.4"]


def test_a_task_that_is_made_later_has_the_newest_version_and_a_rollback_puts_the_old_one_back(steady: World):
    rotate(steady, b"2")
    steady.settle()
    before = {t.id for t in steady.running("steady")}
    steady.fail(steady.running("steady")[0])
    steady.settle()
    assert held(steady, "steady") == {"key.2"}
    assert len({t.id for t in steady.running("steady")} - before) == 1
    before = {t.id for t in steady.running("steady")}
    service = steady.service("steady")
    assert service.previous_spec is not None
    steady.apply(update_service(steady.seen, service.id, service.version, service.previous_spec).changes)
    steady.settle()
    assert held(steady, "steady") == {"key"}
    assert {t.id for t in steady.running("steady")} == before


def test_another_manner_of_having_a_file_takes_another_task(steady: World):
    before = {t.id for t in steady.running("steady")}
    service = steady.service("steady")
    file = replace(service.spec.task_template.container_spec.secrets[0].file, mode=0o400)
    changed = ContainerSpec(image="registry.lab:5000/web:1", secrets=(SecretReference(secret_name="key", file=file),))
    template = replace(service.spec.task_template, container_spec=changed)
    steady.update(replace(service.spec, task_template=template))
    steady.settle()
    assert not before & {t.id for t in steady.running("steady")}


@pytest.mark.parametrize(
    "container",
    [
        pytest.param(
            ContainerSpec(
                secrets=(SecretReference(secret_name="key", file=IN_PLACE),), mounts=(Mount(target="/run/secrets"),)
            ),
            id="a mount over it",
        ),
        pytest.param(
            ContainerSpec(
                secrets=(SecretReference(secret_name="key", file=IN_PLACE),),
                configs=(ConfigReference(config_name="site", file=FileTarget("/run/secrets/deeper/site")),),
            ),
            id="a file in a directory below it",
        ),
    ],
)
def test_the_directory_of_a_file_that_is_replaced_in_place_is_its_own(world: World, container: ContainerSpec):
    with pytest.raises(InvalidArgument, match="lies in /run/secrets"):
        world.create(a_service_spec("crowded", container=container))
