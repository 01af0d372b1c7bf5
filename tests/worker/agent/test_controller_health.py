"""A task with checks on its node: it runs once it is well, gets connections while it is ready, and ends in order."""

import asyncio
from pathlib import Path

import pytest
from lib.driven_task import Driven
from lib.raft_lab import eventually
from msgspec.structs import replace

from pyswarm.proto.errors import FailedPrecondition, Unavailable
from pyswarm.proto.model.spec import ContainerSpec, HealthConfig, PortConfig
from pyswarm.proto.model.states import TaskState
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2
from pyswarm.worker.agent import probes
from pyswarm.worker.runtime.port import Executed

OFTEN = HealthConfig(
    test=("CMD", "check"), interval_seconds=0.01, timeout_seconds=1, retries=2, start_interval_seconds=0.01
)
ILL = Executed(1, b"no answer")


def with_spec(driven: Driven, **container: object) -> None:
    spec = replace(driven.accepted.spec.container_spec, **container)
    task_spec = replace(driven.accepted.spec, container_spec=spec)
    driven.accepted = replace(driven.accepted, spec=task_spec, ports=(PortConfig(published_port=8080, target_port=80),))
    driven.controller = driven.make()


async def test_a_task_gets_connections_and_runs_only_once_it_is_healthy(driven: Driven):
    """Swarm mistake 57."""
    with_spec(driven, healthcheck=replace(OFTEN, interval_seconds=60, retries=3))
    driven.runtime.exec_answer = ILL
    driven.start()
    await eventually(lambda: len(driven.runtime.executed) > 3)
    assert driven.reports[-1].state is TaskState.STARTING
    assert driven.network.published == {}
    driven.runtime.exec_answer = Executed(0)
    await driven.until(TaskState.RUNNING)
    assert list(driven.network.published) == ["t1"]


async def test_a_task_that_never_gets_well_fails_with_what_its_check_wrote(driven: Driven):
    with_spec(driven, healthcheck=OFTEN)
    driven.runtime.exec_answer = ILL
    driven.start()
    failed = await driven.until(TaskState.COMPLETE)
    assert (failed.state, failed.err) == (TaskState.FAILED, "task: unhealthy container: no answer")
    assert driven.runtime.kept["t1"].state == pb.STOPPED


async def test_a_running_task_that_falls_ill_is_stopped_and_fails(driven: Driven):
    with_spec(driven, healthcheck=OFTEN)
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.runtime.exec_answer = ILL
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.FAILED
    assert (driven.runtime.kept["t1"].state, driven.network.published) == (pb.STOPPED, {})


async def test_the_images_health_check_counts_unless_the_service_forbids_it(driven: Driven, tmp_path: Path):
    driven.runtime.image_health = types_pb2.HealthConfig(test=["CMD", "check"], interval_seconds=0.01, retries=1)
    driven.runtime.exec_answer = ILL
    driven.start()
    assert "unhealthy" in (await driven.until(TaskState.COMPLETE)).err
    await driven.stop()
    forbidding = Driven(tmp_path / "other")
    forbidding.runtime.image_health = driven.runtime.image_health
    with_spec(forbidding, healthcheck=HealthConfig(test=("NONE",)))
    forbidding.start()
    await forbidding.until(TaskState.RUNNING)
    assert forbidding.runtime.executed == []
    await forbidding.stop()


async def test_a_task_that_is_not_ready_is_left_running_without_new_connections(driven: Driven):
    with_spec(driven, readiness=OFTEN)
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.runtime.exec_answer = ILL
    await eventually(lambda: driven.network.published == {})
    await eventually(lambda: driven.reports[-1].message == "not ready: no answer")
    assert (driven.reports[-1].state, driven.runtime.kept["t1"].state) == (TaskState.RUNNING, pb.CONTAINER_RUNNING)
    driven.runtime.exec_answer = Executed(0)
    await eventually(lambda: list(driven.network.published) == ["t1"])
    await eventually(lambda: driven.reports[-1].message == "ready again")


async def test_a_paused_container_and_a_restarting_runtime_are_no_illness(
    driven: Driven,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(probes, "RETRY_SECONDS", 0.001)
    with_spec(driven, healthcheck=replace(OFTEN, retries=1))
    skipped: list[HealthConfig] = []
    probe = driven.controller._probe

    async def note_skipped(config: HealthConfig) -> probes.Outcome | None:
        outcome = await probe(config)
        if outcome is None:
            skipped.append(config)
        return outcome

    monkeypatch.setattr(driven.controller, "_probe", note_skipped)
    driven.start()
    await driven.until(TaskState.RUNNING)
    for _ in range(3):
        driven.runtime.failures["execute"] = Unavailable("it restarts")
        await eventually(lambda: "execute" not in driven.runtime.failures)
    driven.runtime.change("t1", pb.CONTAINER_PAUSED)
    driven.runtime.exec_answer = ILL
    already = len(skipped)
    await eventually(lambda: len(skipped) > already + 3)
    assert driven.reports[-1].state is TaskState.RUNNING


async def test_after_a_restart_of_the_agent_a_healthy_task_stays_running_and_is_watched(driven: Driven):
    with_spec(driven, healthcheck=OFTEN)
    driven.start()
    await driven.until(TaskState.RUNNING)
    await driven.stop()
    (driven.accepted,) = driven.journal.load()
    driven.controller = driven.make()
    driven.controller.observe(driven.runtime.kept["t1"])
    driven.runtime.exec_answer = ILL
    driven.start()
    assert "unhealthy" in (await driven.until(TaskState.COMPLETE)).err


async def test_a_task_leaves_the_load_balancer_waits_runs_its_hook_and_only_then_is_signalled(
    driven: Driven,
    monkeypatch: pytest.MonkeyPatch,
):
    """Swarm mistake 58."""
    with_spec(driven, pre_stop=("flush", "--all"), drain_delay_seconds=0.05)
    driven.start()
    await driven.until(TaskState.RUNNING)
    order: list[str] = []
    unpublish, execute, stop = driven.network.unpublish, driven.runtime.execute, driven.runtime.stop
    clock = asyncio.get_running_loop()
    began = clock.time()

    async def note_unpublish(task_id: str) -> None:
        order.append("leave")
        await unpublish(task_id)

    async def note_execute(container_id, args, *, timeout_seconds):
        assert clock.time() - began >= 0.05
        order.append("hook")
        return await execute(container_id, args, timeout_seconds=timeout_seconds)

    async def note_stop(container_id, *, grace_seconds):
        order.append("signal")
        assert grace_seconds <= ContainerSpec().stop_grace_period_seconds
        return await stop(container_id, grace_seconds=grace_seconds)

    monkeypatch.setattr(driven.network, "unpublish", note_unpublish)
    monkeypatch.setattr(driven.runtime, "execute", note_execute)
    monkeypatch.setattr(driven.runtime, "stop", note_stop)
    driven.desire(TaskState.SHUTDOWN)
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.SHUTDOWN
    assert order[:3] == ["leave", "hook", "signal"]
    assert driven.runtime.executed == [("flush", "--all")]


async def test_a_container_that_ends_while_it_drains_is_not_waited_for(driven: Driven):
    with_spec(driven, drain_delay_seconds=3600)
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.desire(TaskState.SHUTDOWN)
    await eventually(lambda: driven.network.published == {})
    driven.runtime.change("t1", pb.STOPPED)
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.SHUTDOWN


async def test_a_hook_that_fails_keeps_nobody_from_stopping(driven: Driven):
    with_spec(driven, pre_stop=("flush",))
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.runtime.exec_answer = Executed(1, b"disk full")
    driven.desire(TaskState.SHUTDOWN)
    assert (await driven.until(TaskState.COMPLETE)).state is TaskState.SHUTDOWN


async def test_the_runtime_hears_of_health_once_each_and_of_being_ill_before_the_end(driven: Driven):
    with_spec(driven, healthcheck=OFTEN)
    driven.start()
    await driven.until(TaskState.RUNNING)
    driven.runtime.exec_answer = ILL
    await driven.until(TaskState.COMPLETE)
    assert [health.status for health in driven.runtime.reported] == ["starting", "healthy", "unhealthy"]
    assert (driven.runtime.reported[-1].failing_streak, driven.runtime.reported[-1].output) == (2, "no answer")
    calls = driven.runtime.calls
    assert calls.index("stop") > max(at for at, call in enumerate(calls) if call == "report_health")


async def test_a_restarted_runtime_hears_of_health_again(driven: Driven):
    with_spec(driven, healthcheck=OFTEN)
    driven.start()
    await driven.until(TaskState.RUNNING)
    await eventually(lambda: [health.status for health in driven.runtime.reported] == ["starting", "healthy"])
    driven.runtime.kept["t1"].ClearField("health")
    driven.controller.observe(driven.runtime.kept["t1"])
    await eventually(lambda: [health.status for health in driven.runtime.reported][2:] == ["healthy"])


async def test_a_runtime_that_takes_no_report_of_health_costs_a_task_nothing(driven: Driven):
    with_spec(driven, healthcheck=OFTEN)
    driven.runtime.failures["report_health"] = FailedPrecondition("container t1 is not running", remedy="")
    driven.start()
    await driven.until(TaskState.RUNNING)


async def test_without_a_health_check_there_is_none_to_report(driven: Driven):
    with_spec(driven, readiness=OFTEN)
    driven.start()
    await driven.until(TaskState.RUNNING)
    assert driven.runtime.reported == []
