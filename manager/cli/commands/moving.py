"""Following tasks that are moved: until a drained node is empty, until a rebalance is over."""

from collections.abc import Callable, Sequence

from pyswarm.manager.cli.client.control import ControlClient
from pyswarm.manager.cli.progress.waiting import wait_until
from pyswarm.manager.cli.records import TaskList
from pyswarm.manager.cli.view.tasks import task_name
from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.model.objects import Task
from pyswarm.proto.model.states import Availability, NodeState, TaskState

Say = Callable[[str], None]


async def until_left(client: ControlClient, node_id: str, *, say: Say) -> None:
    """Return once no task is left on a drained node; tell how many there are, and what the rest waits for.

    Raises FailedPrecondition when the node is made active again meanwhile.
    """
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            say(text)

    async def is_left() -> bool:
        node = await client.node(node_id)
        name = node.description.hostname or node.id
        if node.spec.availability is not Availability.DRAIN:
            raise FailedPrecondition(
                f"node {name} is not drained any more", remedy=f"`pyswarm node ps {name}` shows what runs there."
            )
        if node.status.state in (NodeState.DOWN, NodeState.DISCONNECTED):
            say(f"node {name} is {node.status.state.name.lower()}: its tasks have been replaced")
            return True
        left = _held(await client.tasks(node_ids=[node_id]))
        tell(f"{name}: {len(left)} task{'' if len(left) == 1 else 's'} left" if left else f"{name}: no task is left")
        for line in await _waiting_for(client, left):
            tell(line)
        return not left

    await wait_until(client, is_left, kinds=("task", "node"))


async def until_moved(client: ControlClient, task_ids: Sequence[str], *, say: Say) -> None:
    """Return once every one of these tasks has been moved.

    Raises FailedPrecondition when some could not be moved in time and stay where they are.
    """
    told: set[int] = set()

    async def are_moved() -> bool:
        found = [t for t in (await client.tasks(ids=task_ids)).tasks if t.id in task_ids]
        moving = [t for t in found if t.is_live and t.move is not None]
        if len(moving) not in told:
            told.add(len(moving))
            say(f"{len(task_ids) - len(moving)} of {len(task_ids)} tasks moved")
        if moving:
            return False
        stayed = [t for t in found if t.is_live]
        if stayed:
            raise FailedPrecondition(
                f"{len(stayed)} tasks could not be moved in time and stay where they are",
                remedy=f"`pyswarm why {stayed[0].id[:12]}` says more.",
            )
        return True

    await wait_until(client, are_moved, kinds=("task",))


def _held(listed: TaskList) -> list[Task]:
    return [t for t in listed.tasks if TaskState.ASSIGNED <= t.state <= TaskState.RUNNING]


async def _waiting_for(client: ControlClient, left: Sequence[Task]) -> list[str]:
    """Return what the tasks in their place wait for."""
    if not left:
        return []
    listed = await client.tasks(service_ids=sorted({t.service_id for t in left}))
    slots = {(t.service_id, t.slot) for t in left}
    others = [t for t in listed.tasks if (t.service_id, t.slot) in slots and t.is_live]
    waiting = [t for t in others if t.state < TaskState.ASSIGNED and t.status.err]
    return [f"{task_name(t, listed)} waits: {t.status.err}" for t in waiting]
