"""`pyswarm stack …`: from Compose files to running services, and nothing half-made when a file is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from lib.builders import a_node, a_service, a_task

from pyswarm.proto.model.objects import STACK_LABEL
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import control_pb2 as pb

WEB = """\
services:
  web:
    image: ${REGISTRY:-registry:5000}/web:1
    deploy: {update_config: {monitor: 0s}}
  db:
    image: db
    build: .
    deploy: {update_config: {monitor: 0s}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


def test_deploy_follows_every_service(pyswarm: Any, control: Any, file: Path) -> None:
    control.add(a_node("n1"))

    def run(name: str) -> Any:
        return lambda c: c.add(a_task(f"t-{name}", service=f"service-{name}", node="n1", state=TaskState.RUNNING))

    control.on_write = [run("s_web"), run("s_db")]
    said = pyswarm.run("stack", "deploy", "-c", str(file), "s", REGISTRY="r:5")
    assert said.status == 0, said
    assert said.err == (
        f"Warning: {file}:7:5: services.db.build is ignored: images are pulled from a registry: "
        "build and push it first\n"
    )
    assert said.out == (
        "Creating service s_web\n"
        "Creating service s_db\n"
        "s_web: 0/1 running\n"
        "s_db: 0/1 running\n"
        "s_web: 1/1 running\n"
        "verify: Service s_web converged\n"
        "s_db: 1/1 running\n"
        "verify: Service s_db converged\n"
    )
    request = control.asked(pb.ApplyStackRequest)
    assert [s.task_template.container_spec.image for s in request.services] == ["r:5/web:1", "db"]
    assert not request.prune


def test_deploy_again_says_what_is_unchanged(pyswarm: Any, control: Any, file: Path) -> None:
    words = ["stack", "deploy", "-d", "--prune", "-c", str(file), "s"]
    pyswarm.ok(*words)
    assert pyswarm.ok(*words) == "Service s_web is unchanged\nService s_db is unchanged\n"
    assert control.asked(pb.ApplyStackRequest).prune


def test_a_file_may_come_from_standard_input(pyswarm: Any, control: Any) -> None:
    assert pyswarm.ok("stack", "deploy", "-d", "-c", "-", "s", input=WEB) == (
        "Creating service s_web\nCreating service s_db\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"services:\n  web:\n   image: [\n", "web.yaml:4:1: malformed YAML on line 4"),
        (b"services:\n  web:\n    imagee: a\n", "web.yaml:3:5: unknown key services.web.imagee\nDid you mean image?"),
        (b"services:\n  web:\n    image: \xff\n", "web.yaml:3: the file is not UTF-8 text"),
        (b"services: {web: {image: 'A B'}}", "white space"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_sent(
    pyswarm: Any, control: Any, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "web.yaml"
    path.write_bytes(content)
    assert message in pyswarm.fails("stack", "deploy", "-c", str(path), "s")
    assert control.requests == []


def test_a_file_that_is_not_there(pyswarm: Any, control: Any) -> None:
    assert pyswarm.fails("stack", "deploy", "-c", "/nowhere.yaml", "s") == (
        "Error: /nowhere.yaml: No such file or directory\n"
    )


@pytest.fixture
def deployed(control: Any) -> Any:
    labels = {STACK_LABEL: "shop"}
    web, db = a_service("shop_web", labels=labels, replicas=2), a_service("shop_db", labels=labels)
    control.add(a_node("n1"), web, db, a_service("alone"), a_service("b_x", labels={STACK_LABEL: "b"}))
    control.add(a_task("t1", service=web, node="n1"), a_task("t2", service=db, node="n1"))
    return control


def test_ls_counts_services(pyswarm: Any, deployed: Any) -> None:
    assert pyswarm.ok("stack", "ls") == "NAME      SERVICES\nb         1\nshop      2\n"
    assert pyswarm.ok("stack", "ls", "-q") == "b\nshop\n"
    rows = [json.loads(line) for line in pyswarm.ok("stack", "ls", "--format", "json").splitlines()]
    assert [row["Name"] for row in rows] == ["b", "shop"]


def test_services_and_ps_are_of_the_stack_alone(pyswarm: Any, deployed: Any) -> None:
    assert pyswarm.ok("stack", "services", "-q", "shop") == "shop_web\nshop_db\n"
    assert (
        pyswarm.ok("stack", "services", "--format", "{{.Name}} {{.Replicas}}", "shop") == "shop_web 1/2\nshop_db 1/1\n"
    )
    assert pyswarm.ok("stack", "ps", "--format", "{{.Name}}", "shop") == "shop_db.1\nshop_web.1\n"


@pytest.mark.parametrize("words", [["ps", "nope"], ["services", "nope"], ["rm", "nope"]])
def test_a_stack_that_is_not_there(pyswarm: Any, deployed: Any, words: list[str]) -> None:
    assert pyswarm.fails("stack", *words) == (
        "Error: nothing found in stack: nope\n`pyswarm stack ls` lists what there is.\n"
    )


def test_rm_removes_every_service_of_the_stack(pyswarm: Any, deployed: Any) -> None:
    assert pyswarm.ok("stack", "rm", "shop") == "Removing service shop_web\nRemoving service shop_db\n"
    assert set(deployed.services) == {"alone", "b_x"}
