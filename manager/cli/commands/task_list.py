"""Printing tasks, which nodes, services and stacks all can."""

from collections.abc import Mapping, Sequence

from pyswarm.manager.cli.commands.shared import echo_list
from pyswarm.manager.cli.records import TaskList
from pyswarm.manager.cli.view.filters import keep_tasks
from pyswarm.manager.cli.view.tasks import TASK_COLUMNS, task_rows
from pyswarm.proto.clock import SYSTEM_CLOCK

TASK_FILTERS = ("id", "name", "node", "desired-state")


def echo_tasks(
    listed: TaskList,
    filters: Mapping[str, Sequence[str]],
    *,
    format_: str,
    quiet: bool,
    no_trunc: bool,
    no_resolve: bool,
) -> None:
    kept = keep_tasks(listed, filters)
    rows = task_rows(kept, now=SYSTEM_CLOCK.now(), no_trunc=no_trunc, no_resolve=no_resolve)
    echo_list(rows, TASK_COLUMNS, format_=format_, quiet=quiet)
