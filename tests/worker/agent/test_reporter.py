"""What waits for more before it is reported, and what does not."""

import asyncio

import pytest

from pyswarm.proto.model.objects import TaskStatus
from pyswarm.proto.model.states import TaskState
from pyswarm.worker.agent import reporter as module
from pyswarm.worker.agent.reporter import Reporter


def status(state: TaskState) -> TaskStatus:
    return TaskStatus(state=state)


async def test_states_on_the_way_are_told_together_with_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 60.0)
    reporter = Reporter()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        taken = group.create_task(reporter.take())
        for state in (TaskState.ACCEPTED, TaskState.PREPARING):
            reporter.report("t1", status(state))
            await asyncio.sleep(0)
        assert not taken.done()
        reporter.report("t2", status(TaskState.RUNNING))
    assert taken.result() == {"t1": status(TaskState.PREPARING), "t2": status(TaskState.RUNNING)}


async def test_a_state_on_the_way_is_told_though_nothing_follows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)
    reporter = Reporter()
    reporter.report("t1", status(TaskState.PREPARING))
    async with asyncio.timeout(5):
        assert await reporter.take() == {"t1": status(TaskState.PREPARING)}


async def test_what_could_not_be_sent_is_tried_again_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 60.0)
    reporter = Reporter()
    reporter.give_back({"t1": status(TaskState.PREPARING)})
    async with asyncio.timeout(5):
        assert await reporter.take() == {"t1": status(TaskState.PREPARING)}
