"""How the product's code is written: documented, nothing swallowed, everything bounded and owned."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from lib.source import calls, dotted, files_of_tests, product_files, tree_of

MODULES = product_files()
PACKAGES = [f for f in MODULES if f.name == "__init__.py"]


@pytest.mark.parametrize("file", PACKAGES, ids=str)
def test_every_package_says_what_belongs_in_it(file: Path) -> None:
    text = ast.get_docstring(tree_of(file)) or ""
    own_words = [w for w in text.split() if w.strip(".:,").lower() not in file.parts]
    assert len(text) >= 50, "a package's docstring says what belongs there and what does not"
    assert len(own_words) >= 6


def test_every_module_opens_with_what_it_does() -> None:
    assert [str(f) for f in MODULES if not ast.get_docstring(tree_of(f))] == []


def _swallowing(file: Path) -> Iterator[int]:
    broad = {"Exception", "BaseException"}
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
            is_broad = node.type is None or any(dotted(k).rpartition(".")[2] in broad for k in kinds)
            does_nothing = all(
                isinstance(s, ast.Pass | ast.Continue)
                or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
                or (isinstance(s, ast.Return) and (s.value is None or isinstance(s.value, ast.Constant)))
                for s in node.body
            )
            if is_broad and does_nothing:
                yield node.lineno
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func).rpartition(".")[2] == "suppress"
            and any(dotted(a) in broad for a in node.args)
        ):
            yield node.lineno


def test_no_exception_is_swallowed_unseen() -> None:
    assert [f"{f}:{line}" for f in MODULES for line in _swallowing(f)] == []


def test_there_are_no_stubs() -> None:
    stubs = [
        f"{f}:{node.lineno}"
        for f in MODULES
        for node in ast.walk(tree_of(f))
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.dump(node.exc)
    ]
    assert not stubs


BOUNDED_OTHERWISE = Counter({"manager/api/logs.py": 1})
"""Queues without a size: in logs.py a semaphore counts the lines, so that the end marker always finds room."""


def test_every_queue_has_a_bound() -> None:
    kinds = ("asyncio.Queue", "asyncio.LifoQueue", "asyncio.PriorityQueue", "queue.Queue", "queue.SimpleQueue")
    unbounded = Counter(
        str(f)
        for f in MODULES
        for name, call in calls(f)
        if name in kinds and not call.args and not any(k.arg == "maxsize" for k in call.keywords)
    )
    assert unbounded - BOUNDED_OTHERWISE == Counter()


LOOSE_TASKS = Counter(
    {
        "manager/api/dispatcher.py": 2,  # two waits raced against each other, both cancelled in `finally`
        "manager/api/logs.py": 1,  # an async generator's: a TaskGroup must not be left open across a yield
        "manager/daemon.py": 1,  # the leader's work, which must be cancelled alone when leadership is lost
        "manager/main.py": 2,  # the root of all tasks, and the wait for a signal
        "worker/main.py": 2,  # the root of all tasks, and the waits for signals
        "worker/supervisor/daemons.py": 1,  # one keeper a daemon, begun and ended by command
    }
)
"""Tasks made outside a TaskGroup, by file: each has one owner that cancels it. May only shrink."""

TEST_SLEEPS: Counter[str] = Counter()
"""Sleeps in tests, by file. May only shrink: a sleep waits too long where it passes and too short where it fails.
The end-to-end layer and its helpers watch foreign processes, which send no events, and are not counted."""

WATCHES_FOREIGN_PROCESSES = (
    "tests/e2e/",
    "tests/bench/",
    "tests/lib/",
    "tests/conftest.py",
    "tests/agent_runtime/container/test_killed_anywhere.py",
)


def test_every_task_has_a_parent() -> None:
    loose = Counter(
        str(f)
        for f in MODULES
        for name, _ in calls(f)
        if name in ("asyncio.create_task", "asyncio.ensure_future") or name.endswith("loop.create_task")
    )
    assert loose - LOOSE_TASKS == Counter()


def test_tests_do_not_sleep() -> None:
    sleeps = Counter(
        str(f)
        for f in files_of_tests()
        if not str(f).startswith(WATCHES_FOREIGN_PROCESSES)
        for name, call in calls(f)
        if name in ("time.sleep", "asyncio.sleep", "sleep")
        # Sleeping for no time only lets others run.
        and not (call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
    )
    assert sleeps - TEST_SLEEPS == Counter()
