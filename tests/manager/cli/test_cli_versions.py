"""`secret rotate`, `secret prune` and the same for configs, against a whole manager in memory."""

from collections.abc import Iterator
from typing import Any

import pytest
from lib.builders import a_node
from lib.live_manager import LiveManager, live_manager


@pytest.fixture
def manager(pyswarm: Any) -> Iterator[LiveManager]:
    with live_manager(pyswarm.paths.manager_socket) as live:
        live.add(a_node("n1"))
        pyswarm.ok("secret", "create", "key", "-", input="one")
        yield live


def test_a_rotation_updates_the_services_that_use_it(pyswarm: Any, manager: LiveManager):
    pyswarm.ok("service", "create", "-d", "--name", "web", "--secret", "key", "r/web:1")
    manager.until(lambda: len(manager.running("web")) == 1)
    assert pyswarm.ok("secret", "rotate", "-d", "key", "-", input="two") == "key.2\n"
    manager.until(lambda: any(t.spec_version == 2 for t in manager.running("web")))
    web = manager.seen.service_by_name("web")
    assert web is not None
    (reference,) = web.spec.task_template.container_spec.secrets
    assert (reference.secret_name, reference.path) == ("key.2", "/run/secrets/key")
    said = pyswarm.ok("secret", "rotate", "key", "-", input="two")
    assert said == "key.2: the content is the same, nothing changes\n"
    assert "two" not in pyswarm.ok("secret", "inspect", "key.2")


def test_pruning_asks_before_it_removes_what_is_no_old_version(pyswarm: Any, manager: LiveManager):
    pyswarm.ok("secret", "rotate", "key", "-", input="two")
    assert pyswarm.ok("secret", "prune") == ""  # a rotation prunes by itself what nobody uses
    assert pyswarm.ok("secret", "ls", "--format", "{{.Name}}") == "key.2\n"
    assert pyswarm.run("secret", "prune", "--all", input="n\n").status != 0
    assert pyswarm.ok("secret", "prune", "--all", "--force") == "key.2\n"
    assert pyswarm.ok("secret", "ls", "-q") == ""


def test_what_does_not_exist_cannot_be_rotated(pyswarm: Any, manager: LiveManager):
    assert "no such config: site" in pyswarm.run("config", "rotate", "site", "-", input="x").err
    assert "it is empty" in pyswarm.run("secret", "rotate", "key", "-", input="").err
