"""Scheduled jobs on the command line, against a whole manager in memory."""

from collections.abc import Iterator
from typing import Any

import pytest
from lib.builders import a_node
from lib.live_manager import LiveManager, live_manager

from pyswarm.proto.model.objects import Service
from pyswarm.proto.model.spec import CronSchedule
from pyswarm.proto.model.states import Concurrency, JobState


@pytest.fixture
def manager(pyswarm: Any) -> Iterator[LiveManager]:
    with live_manager(pyswarm.paths.manager_socket) as live:
        live.add(a_node("n1"))
        yield live


def backup(manager: LiveManager) -> Service:
    found = manager.seen.service_by_name("backup")
    assert found is not None
    return found


def create(pyswarm: Any, *flags: str) -> str:
    out: str = pyswarm.ok("service", "create", "--name", "backup", "--cron", "0 3 1 1 *", *flags, "r/backup:1")
    return out


def test_a_scheduled_job_is_created_without_running_and_tells_when_it_will(pyswarm: Any, manager: LiveManager):
    create(pyswarm, "--cron-time-zone", "Europe/Berlin", "--cron-concurrency", "replace", "--cron-keep-failed", "5")
    assert backup(manager).spec.schedule == CronSchedule(
        "0 3 1 1 *", "Europe/Berlin", Concurrency.REPLACE, keep_failed=5
    )
    assert backup(manager).spec.mode.name == "replicated-job"
    assert not list(manager.seen.tasks())
    shown = pyswarm.ok("service", "inspect", "--pretty", "backup")
    assert "Next Run:" in shown
    assert "-01-01T02:00:00" in shown
    listed = pyswarm.ok("service", "ls", "--format", "{{.Mode}} {{.Replicas}}")
    assert listed == "replicated job 0/0 (0/1 completed)\n"


def test_a_forced_update_runs_it_now_and_inspect_tells_how_it_went(pyswarm: Any, manager: LiveManager):
    create(pyswarm)
    for _ in range(2):
        number = backup(manager).job_status.iteration + 1
        pyswarm.ok("service", "update", "-q", "--force", "backup")
        manager.until(lambda number=number: backup(manager).job_status.iteration == number)  # type: ignore[misc]
        manager.until(lambda: backup(manager).job_status.state is JobState.COMPLETE)
    shown = pyswarm.ok("service", "inspect", "--pretty", "backup")
    assert "Earlier Runs:\n 1  complete" in shown
    assert '"JobIteration"' in pyswarm.ok("service", "inspect", "backup")


def test_a_schedule_is_suspended_changed_and_ended(pyswarm: Any, manager: LiveManager):
    create(pyswarm)
    pyswarm.ok("service", "update", "-q", "--cron-suspend", "backup")
    assert backup(manager).spec.schedule == CronSchedule("0 3 1 1 *", suspended=True)
    pyswarm.ok("service", "update", "-q", "--no-cron-suspend", "--cron", "0 4 1 1 *", "backup")
    assert backup(manager).spec.schedule == CronSchedule("0 4 1 1 *")
    pyswarm.ok("service", "update", "-q", "--cron", "", "backup")
    assert backup(manager).spec.schedule is None
    manager.until(lambda: backup(manager).job_status.state is JobState.COMPLETE)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--cron", "0 3 * *"), "has 4 fields"),
        (("--cron", "* * * * *", "--cron-time-zone", "Mars"), "time zone 'Mars' is unknown"),
        (("--cron", "* * * * *", "--mode", "global"), "only jobs run by a schedule"),
        (("--cron-concurrency", "allow"), "there is no schedule to change"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(pyswarm: Any, manager: LiveManager, flags: tuple[str, ...], told: str):
    assert told in pyswarm.fails("service", "create", "-d", "--name", "x", *flags, "r/x:1")
    assert not list(manager.seen.services())


def test_a_stack_has_scheduled_jobs(pyswarm: Any, manager: LiveManager, tmp_path: Any):
    path = tmp_path / "shop.yaml"
    path.write_text(
        "services:\n  backup:\n    image: r/backup:1\n    deploy:\n      schedule: {cron: '0 3 1 1 *',"
        " time_zone: Asia/Kolkata, concurrency: allow, missed_run_window: 1h, keep_completed: 1, suspend: true}\n"
    )
    assert "0 tasks would start" in pyswarm.ok("stack", "plan", "-c", str(path), "shop")
    pyswarm.ok("stack", "deploy", "-q", "-c", str(path), "shop")
    service = manager.seen.service_by_name("shop_backup")
    assert service is not None
    assert service.spec.schedule == CronSchedule(
        "0 3 1 1 *", "Asia/Kolkata", Concurrency.ALLOW, 3600.0, keep_completed=1, suspended=True
    )
