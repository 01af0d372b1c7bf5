"""Commands that write follow what becomes of it, and end with the truth."""

import signal
from typing import Any

import pytest
from lib.builders import a_node, a_task
from lib.fake_control import FakeControl, Step
from msgspec.structs import replace

from pyswarm.proto.model.objects import UpdateStatus
from pyswarm.proto.model.states import TaskState, UpdateState

CREATE = ["service", "create", "--name", "web", "--update-monitor", "0s"]


def task_becomes(slot: int, state: TaskState, *, name: str = "", err: str = "", desired: int = 512) -> Step:
    def step(control: FakeControl) -> None:
        service = next(iter(control.services.values()))
        control.add(
            a_task(
                name or f"task{slot}",
                service=service,
                slot=slot,
                node="n1",
                state=state,
                err=err,
                desired=TaskState(desired),
            )
        )

    return step


@pytest.fixture
def cluster(control: Any) -> Any:
    control.add(a_node("n1"))
    return control


def test_create_follows_until_the_service_has_converged(pyswarm: Any, cluster: Any) -> None:
    cluster.on_write = [
        task_becomes(1, TaskState.PREPARING),
        task_becomes(2, TaskState.PREPARING),
        task_becomes(1, TaskState.RUNNING),
        task_becomes(2, TaskState.RUNNING),
    ]
    assert pyswarm.ok(*CREATE, "--replicas", "2", "web:1") == (
        "service-web\nweb: 0/2 running\nweb: 1/2 running\nweb: 2/2 running\nverify: Service web converged\n"
    )


def test_create_quietly_says_only_the_id(pyswarm: Any, cluster: Any) -> None:
    cluster.on_write = [task_becomes(1, TaskState.RUNNING)]
    assert pyswarm.ok(*CREATE, "-q", "web:1") == "service-web\n"


def test_create_detached_does_not_wait(pyswarm: Any, cluster: Any) -> None:
    assert pyswarm.ok(*CREATE, "-d", "web:1") == "service-web\n"


def test_create_tells_why_tasks_keep_failing(pyswarm: Any, cluster: Any) -> None:
    cluster.on_write = [
        task_becomes(1, TaskState.REJECTED, name=f"task{n}", err="No such image: web:1", desired=640) for n in range(3)
    ]
    said = pyswarm.run(*CREATE, "web:1")
    assert said.status == 1
    assert said.out == "service-web\nweb: 0/1 running\n"
    assert said.err == (
        "Error: task web.1 failed 3 times: No such image: web:1\n"
        "See `pyswarm service ps --no-trunc web` and `pyswarm service logs web`.\n"
    )


def test_a_service_removed_while_we_follow_ends_it(pyswarm: Any, cluster: Any) -> None:
    cluster.on_write = [lambda control: control.services.clear()]
    assert pyswarm.fails(*CREATE, "web:1") == "Error: service web was removed\n"


def test_scale_follows_every_service_it_scaled(pyswarm: Any, cluster: Any) -> None:
    pyswarm.ok(*CREATE, "-d", "web:1")
    cluster.on_write = [task_becomes(1, TaskState.RUNNING), task_becomes(2, TaskState.RUNNING)]
    out = pyswarm.ok("service", "scale", "web=2")
    assert out.startswith("web scaled to 2\nweb: ")
    assert out.endswith("web: 2/2 running\nverify: Service web converged\n")


def test_update_fails_when_the_cluster_pauses_it(pyswarm: Any, cluster: Any) -> None:
    pyswarm.ok(*CREATE, "-d", "web:1")
    cluster.on_write = [
        lambda control: control.add(
            replace(
                next(iter(control.services.values())),
                update_status=UpdateStatus(UpdateState.PAUSED, started_at=9, message="because of a test"),
            )
        )
    ]
    said = pyswarm.run("service", "update", "--image", "web:2", "web")
    assert said.status == 1
    assert said.err.startswith("Error: the update is paused: because of a test\nSee `pyswarm service ps")


def test_an_update_of_somebody_else_in_between_is_not_overwritten(pyswarm: Any, cluster: Any) -> None:
    pyswarm.ok(*CREATE, "-d", "web:1")

    def somebody_else_writes(control: FakeControl) -> None:
        service = next(iter(control.services.values()))
        control.add(replace(service, version=service.version + 1))

    cluster.after_next_look(somebody_else_writes)
    said = pyswarm.run("service", "update", "--image", "web:2", "web")
    assert said.status == 1
    assert "is at version" in said.err
    assert "Somebody changed it since you read it" in said.err


def test_ctrl_c_leaves_the_service_alone_and_says_so(pyswarm: Any, cluster: Any) -> None:
    cluster.on_write = [lambda _: signal.raise_signal(signal.SIGINT)]
    said = pyswarm.run(*CREATE, "web:1")
    assert said.status == 1
    assert said.err.endswith("Operation continuing in background.\nUse `pyswarm service ps web` to check progress.\n")
    assert set(cluster.services) == {"service-web"}
