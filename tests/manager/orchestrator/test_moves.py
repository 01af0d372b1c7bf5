"""The table of who may move a task: one owner a state, no way back, no way out of the end."""

from itertools import product

from pyswarm.manager.orchestrator.moves import OWNER, REACH, Actor, desire, may_move
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.states import TaskState


def test_every_state_that_can_be_left_has_one_component_that_may():
    leavable = {s for s in TaskState if not s.is_terminal}
    assert set(OWNER) == leavable


def test_states_only_grow_and_ends_are_final():
    for at, to, by in product(TaskState, TaskState, Actor):
        if may_move(at, to, by):
            assert to >= at
            assert not at.is_terminal


def test_only_the_agent_tells_how_a_task_ran():
    for state in (TaskState.RUNNING, TaskState.FAILED, TaskState.COMPLETE):
        assert [by for by in Actor if state in REACH[by]] == [Actor.AGENT]


def test_wishes_only_grow():
    task = Task(id="t", desired_state=TaskState.SHUTDOWN)
    assert desire(task, TaskState.RUNNING) is task
    assert desire(task, TaskState.REMOVE).desired_state is TaskState.REMOVE
