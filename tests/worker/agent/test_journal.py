"""What the journal of tasks holds after every kind of death."""

import asyncio
import os
from pathlib import Path

import pytest
from lib.builders import a_service, a_task
from msgspec.structs import replace

from pyswarm.proto.model.objects import TaskStatus
from pyswarm.proto.model.states import TaskState
from pyswarm.worker.agent import journal as module
from pyswarm.worker.agent.journal import Accepted, Journal

WEB = a_service("web")


def accepted(task_id: str, state: TaskState = TaskState.ASSIGNED) -> Accepted:
    task = a_task(task_id, service=WEB, node="n1", state=TaskState.ASSIGNED)
    return Accepted(task=task, spec=WEB.spec.task_template, status=TaskStatus(state=state))


def moved(to: Accepted, state: TaskState) -> Accepted:
    return replace(to, status=replace(to.status, state=state))


def test_a_journal_opened_again_holds_each_task_as_it_was_last(tmp_path: Path):
    journal = Journal(tmp_path)
    first, second = accepted("t1"), accepted("t2")
    journal.write(first)
    journal.write(second)
    running = moved(first, TaskState.RUNNING)
    journal.write(running)
    stopping = replace(running, task=replace(running.task, desired_state=TaskState.SHUTDOWN))
    journal.write(stopping)
    journal.remove("t2")
    # Not closed: killed processes do not close.
    assert Journal(tmp_path).load() == [stopping]


def test_a_task_that_is_gone_and_accepted_again_starts_anew(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write(accepted("t1", TaskState.RUNNING))
    journal.remove("t1")
    journal.write(accepted("t1"))
    assert Journal(tmp_path).load() == [accepted("t1")]


@pytest.mark.parametrize("lost", [1, 5, 20])
def test_a_line_torn_by_a_power_cut_costs_only_itself(tmp_path: Path, lost: int):
    journal = Journal(tmp_path)
    task = accepted("t1")
    for state in (TaskState.ASSIGNED, TaskState.READY, TaskState.STARTING):
        journal.write(moved(task, state))
    file = tmp_path / "tasks.log"
    os.truncate(file, file.stat().st_size - lost)
    again = Journal(tmp_path)
    # Without its last byte the line is whole: only the newline is missing.
    assert again.load() == [moved(task, TaskState.STARTING if lost == 1 else TaskState.READY)]
    again.write(moved(task, TaskState.RUNNING))
    assert Journal(tmp_path).load() == [moved(task, TaskState.RUNNING)]


def test_how_far_a_task_got_is_written_without_its_spec(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write(accepted("t1"))
    file = tmp_path / "tasks.log"
    before = file.stat().st_size
    journal.write(accepted("t1", TaskState.PREPARING))
    assert file.stat().st_size - before < 200


async def test_tasks_that_start_together_wait_for_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    syncs: list[int] = []
    monkeypatch.setattr(module.os, "fdatasync", syncs.append)
    journal = Journal(tmp_path)
    await asyncio.gather(*(journal.synced() for _ in range(50)))
    assert 1 <= len(syncs) <= 2


async def test_the_file_is_written_anew_when_it_holds_mostly_what_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "GARBAGE_BYTES_MAX", 20_000)
    journal = Journal(tmp_path)
    kept = accepted("kept", TaskState.RUNNING)
    journal.write(kept)
    for number in range(200):
        journal.write(accepted(f"t{number}"))
        journal.remove(f"t{number}")
    assert (tmp_path / "tasks.log").stat().st_size > 20_000
    await journal.synced()
    assert (tmp_path / "tasks.log").stat().st_size < 5_000
    last = accepted("last")
    journal.write(last)
    assert Journal(tmp_path).load() == [kept, last]
