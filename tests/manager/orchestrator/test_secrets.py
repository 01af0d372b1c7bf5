"""Secrets and configs: their names, their uses, and that what they hold never changes."""

from collections.abc import Iterator

import pytest
from lib.builders import a_service_spec
from lib.world import World

from pyswarm.manager.orchestrator import services, stacks
from pyswarm.manager.orchestrator.secrets import create_payload, relabel_payload, remove_payload
from pyswarm.manager.store.changes import Expect
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OutOfSequence
from pyswarm.proto.model.objects import STACK_LABEL, Config, Secret, Service
from pyswarm.proto.model.spec import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    FileTarget,
    Mount,
    SecretReference,
    SecretSpec,
    ServiceSpec,
)
from pyswarm.proto.model.states import MountType


@pytest.fixture
def world() -> World:
    world = World()
    for spec in (SecretSpec("key", {}, b"K"), ConfigSpec("site", {}, b"S")):
        world.apply(create_payload(world.seen, spec, new_id=world.new_id).changes)
    return world


def secret(world: World, name: str = "key") -> Secret:
    found = world.seen.secret_by_name(name)
    assert found is not None
    return found


def config(world: World, name: str = "site") -> Config:
    found = world.seen.config_by_name(name)
    assert found is not None
    return found


def using(*references: SecretReference | ConfigReference, name: str = "web", **more: object) -> ServiceSpec:
    container = ContainerSpec(
        secrets=tuple(r for r in references if isinstance(r, SecretReference)),
        configs=tuple(r for r in references if isinstance(r, ConfigReference)),
        **more,  # type: ignore[arg-type]
    )
    return a_service_spec(name, container=container)


class NoWalk(Snapshot):
    """A view of so many objects that nobody may walk over them."""

    def secrets(self) -> Iterator[Secret]:
        raise AssertionError("every secret was looked at")

    def configs(self) -> Iterator[Config]:
        raise AssertionError("every config was looked at")

    def services(self) -> Iterator[Service]:
        raise AssertionError("every service was looked at")


def test_what_is_created_is_decided_without_a_look_at_all_others(world: World):
    """Many writes come on one stream, and are decided between two heartbeats of the leader."""
    seen = NoWalk(world.seen.tables, world.seen.version)
    for spec in (SecretSpec("other", {}, b""), ConfigSpec("other", {}, b"")):
        assert create_payload(seen, spec, new_id=world.new_id).changes
    spec = using(SecretReference(secret_name="key"), ConfigReference(config_name="site"))
    assert services.create_service(seen, spec, new_id=world.new_id).changes


def test_names_are_unique_among_their_kind_whatever_their_case(world: World):
    with pytest.raises(AlreadyExists, match="a secret called key already exists"):
        create_payload(world.seen, SecretSpec("KEY", {}, b"x"), new_id=world.new_id)
    world.apply(create_payload(world.seen, ConfigSpec("key", {}, b"x"), new_id=world.new_id).changes)
    assert config(world, "key").spec.data == b"x"


def test_two_writers_cannot_both_take_a_name(world: World):
    plans = [create_payload(world.seen, SecretSpec("new", {}, data), new_id=world.new_id) for data in (b"1", b"2")]
    world.apply(plans[0].changes)
    with pytest.raises(Conflict, match="taken by secret"):
        world.apply(plans[1].changes)


def test_a_service_names_its_secrets_and_gets_their_ids(world: World):
    web = world.create(using(SecretReference(secret_name="key"), ConfigReference(config_name="site")))
    container = web.spec.task_template.container_spec
    assert container.secrets[0].secret_id == secret(world).id
    assert container.configs[0].config_id == config(world).id
    assert (container.secrets[0].path, container.configs[0].path) == ("/run/secrets/key", "/site")


def test_a_service_that_uses_what_does_not_exist_is_refused(world: World):
    with pytest.raises(NotFound, match="service web uses secret nope, which does not exist"):
        world.create(using(SecretReference(secret_name="nope")))


@pytest.mark.parametrize(
    "spec",
    [
        using(SecretReference(secret_name="key"), SecretReference(secret_name="key")),
        using(
            SecretReference(secret_name="key", file=FileTarget("/a")),
            ConfigReference(config_name="site", file=FileTarget("a")),
        ),
        using(SecretReference(secret_name="key"), mounts=(Mount(MountType.TMPFS, target="/run/secrets/key/"),)),
    ],
)
def test_two_things_cannot_have_one_place_in_a_container(world: World, spec: ServiceSpec):
    with pytest.raises(InvalidArgument, match="is the place of two"):
        world.create(spec)


def test_what_a_service_uses_cannot_be_removed_and_the_users_are_named(world: World):
    world.create(using(SecretReference(secret_name="key"), name="web"))
    world.create(using(SecretReference(secret_name="key"), name="api"))
    with pytest.raises(FailedPrecondition, match="secret key is in use by the following services: api, web") as refused:
        remove_payload(world.seen, secret(world))
    assert "--secret-rm key api" in refused.value.remedy
    world.apply(remove_payload(world.seen, config(world)).changes)
    assert world.seen.config_by_name("site") is None


def test_a_secret_that_is_removed_while_a_service_is_written_makes_the_writer_look_again(world: World):
    plan = services.create_service(world.seen, using(SecretReference(secret_name="key")), new_id=world.new_id)
    assert Expect("secret", secret(world).id, secret(world).version) in plan.changes
    world.apply(remove_payload(world.seen, secret(world)).changes)
    with pytest.raises(Conflict):
        world.apply(plan.changes)


def test_labels_change_and_nothing_else(world: World):
    world.apply(relabel_payload(secret(world), secret(world).version, {"a": "b"}).changes)
    assert (secret(world).spec.labels, secret(world).spec.data) == ({"a": "b"}, b"K")
    with pytest.raises(OutOfSequence):
        relabel_payload(secret(world), 1, {})


def test_a_secret_is_not_shown_where_records_are_printed(world: World):
    assert "K" not in repr(secret(world)).replace("key", "")


# -- stacks


LABELS = {STACK_LABEL: "shop"}


def deploy(world: World, *payloads: SecretSpec | ConfigSpec, services_: tuple[ServiceSpec, ...] = ()) -> list[str]:
    plan, outcome = stacks.apply_stack(
        world.seen, "shop", services_, payloads=payloads, prune=False, new_id=world.new_id
    )
    world.apply(plan.changes)
    return [f"{c.kind} {c.name} {c.action}" for c in outcome]


def shop_web() -> ServiceSpec:
    spec = using(SecretReference(secret_name="shop_key"), name="shop_web")
    return ServiceSpec(name=spec.name, labels=LABELS, task_template=spec.task_template, mode=spec.mode)


def test_a_stack_brings_its_secrets_with_the_services_that_use_them(world: World):
    key = SecretSpec("shop_key", LABELS, b"1")
    assert deploy(world, key, services_=(shop_web(),)) == ["secret shop_key created", "service shop_web created"]
    assert deploy(world, key, services_=(shop_web(),)) == ["service shop_web unchanged"]


def test_a_stacks_secret_with_another_content_is_refused_and_nothing_changes(world: World):
    deploy(world, SecretSpec("shop_key", LABELS, b"1"))
    before = world.seen.version
    with pytest.raises(InvalidArgument, match="shop_key exists with another content") as refused:
        deploy(world, ConfigSpec("shop_c", LABELS, b""), SecretSpec("shop_key", LABELS, b"2"))
    assert "name" in refused.value.remedy
    assert (world.seen.version, world.seen.config_by_name("shop_c")) == (before, None)


def test_a_removed_stack_takes_its_secrets_along(world: World):
    deploy(world, SecretSpec("shop_key", LABELS, b"1"), services_=(shop_web(),))
    plan, outcome = stacks.remove_stack(world.seen, "shop")
    world.apply(plan.changes)
    assert [f"{c.kind} {c.name}" for c in outcome] == ["service shop_web", "secret shop_key"]
    assert world.seen.secret_by_name("shop_key") is None
