"""A table of slots that is changed task by task equals one that is made anew."""

from hypothesis import given
from hypothesis import strategies as st
from lib.builders import a_service, a_task

from pyswarm.manager.orchestrator.slots import SlotTable, slots_of
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.states import TaskState

WEB = a_service("web")
tasks = st.builds(
    lambda number, slot, desired, at: a_task(
        f"t{number}-{slot}", service=WEB, slot=slot, desired=desired, created_at=at
    ),
    st.integers(0, 3),
    st.integers(1, 4),
    st.sampled_from([TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE]),
    st.integers(0, 2).map(float),
)


@given(st.lists(tasks), st.lists(st.lists(tasks, max_size=3)))
def test_slots_that_are_changed_equal_slots_made_anew(first: list[Task], changes: list[list[Task]]):
    present = {task.id: task for task in first}
    table = SlotTable(WEB, present.values())
    for step in changes:
        for task in step:
            present[task.id] = task
            table.put(task)
        before = table.slots
        anew = slots_of(WEB, present.values())
        assert list(before.items()) == list(anew.items())
        assert [slot.live for slot in before.values()] == [slot.live for slot in anew.values()]
