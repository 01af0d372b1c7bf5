"""Who may import what: the contracts of pyproject.toml, and what they cannot see."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from lib.source import (
    ROOT,
    calls,
    chains_from,
    dotted,
    imports_of,
    module_of,
    modules,
    product_files,
    top_level,
    tree_of,
)

IMPURE = {
    *("asyncio", "time", "random", "secrets", "uuid", "os", "socket", "subprocess", "threading", "grpc", "pysyncobj"),
    *("multiprocessing", "concurrent", "tempfile", "shutil", "selectors", "signal"),
}
PURE_PACKAGES = (
    "pyswarm.proto.model",
    "pyswarm.proto.codec",
    "pyswarm.manager.orchestrator",
    "pyswarm.manager.scheduler",
    "pyswarm.manager.allocator",
    "pyswarm.manager.dispatcher",
    "pyswarm.worker.network.plan",
)
PURE_MODULES = (
    "pyswarm.proto.errors",
    "pyswarm.proto.backoff",
    "pyswarm.manager.store.changes",
    "pyswarm.manager.store.conflict",
    "pyswarm.manager.store.tables",
    "pyswarm.manager.store.transition",
    "pyswarm.manager.store.snapshot",
    "pyswarm.manager.store.apply",
    "pyswarm.manager.store.pieces",
)


def pure_modules() -> list[str]:
    within = [m for m in modules() if any(m == p or m.startswith(p + ".") for p in PURE_PACKAGES)]
    return sorted({*within, *PURE_MODULES})


def files_importing(*names: str) -> set[Path]:
    return {f for f in product_files() if any(top_level(m) in names or m in names for m, _ in imports_of(f))}


def test_the_import_contracts_hold() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("module", pure_modules())
def test_decisions_reach_no_clock_no_randomness_and_no_machine(module: str) -> None:
    reached = {
        f"{' -> '.join(chain)} imports {name} (line {line})"
        for chain, name, line in chains_from(module)
        if top_level(name) in IMPURE
    }
    assert not reached


@pytest.mark.parametrize("module", pure_modules())
def test_decisions_do_not_ask_for_the_time_or_open_files(module: str) -> None:
    asked = [
        f"{name}() in line {call.lineno}"
        for name, call in calls(modules()[module])
        if name in ("open", "input", "print")
        or name.endswith((".now", ".utcnow", ".today", ".read_text", ".read_bytes", ".write_text", ".write_bytes"))
    ]
    assert not asked


def test_pickle_has_at_most_one_door() -> None:
    outside = {
        f
        for f in files_importing("pickle", "cPickle", "dill", "shelve", "marshal")
        if f.parts[:2] != ("manager", "raft")
    }
    assert not outside


def test_pysyncobj_has_one_door() -> None:
    assert {f for f in files_importing("pysyncobj") if f.parts[:2] != ("manager", "raft")} == set()


def test_ctypes_has_two_doors() -> None:
    doors = (("agent_runtime", "kernel"), ("worker", "network"))
    assert {f for f in files_importing("ctypes") if f.parts[:2] not in doors} == set()


def test_the_runtime_daemon_never_forks() -> None:
    """gRPC's threads make fork undefined (DESIGN: only the spawner, a process of its own, makes processes)."""
    forbidden_modules = ("subprocess", "multiprocessing", "pty")
    forbidden_calls = (
        "os.fork", "os.forkpty", "os.system", "os.popen", "asyncio.create_subprocess_exec",
        "asyncio.create_subprocess_shell",
    )  # fmt: skip
    found: list[str] = []
    for file in product_files():
        if file.parts[0] != "agent_runtime" or file.stem in ("spawner", "spawner_main") or "oci" in file.parts:
            continue
        found += [f"{file}:{line} imports {m}" for m, line in imports_of(file) if top_level(m) in forbidden_modules]
        for node in ast.walk(tree_of(file)):
            name = dotted(node) if isinstance(node, ast.Attribute) else ""
            if name in forbidden_calls or name.endswith("ProcessPoolExecutor"):
                found.append(f"{file}:{getattr(node, 'lineno', 0)} uses {name}")
    assert not found


@pytest.mark.parametrize("module", ["pyswarm.worker.node", "pyswarm.agent_runtime.container.spawner_main"])
def test_what_outlives_everything_else_needs_the_standard_library_only(module: str) -> None:
    """The node supervisor and the spawners must start, and stay small, whatever is wrong with the rest."""
    assert module in modules()
    foreign = {
        f"{' -> '.join(chain)} imports {name}"
        for chain, name, _ in chains_from(module)
        if top_level(name) not in sys.stdlib_module_names
    }
    assert not foreign


def test_the_rules_see_imports_wherever_they_stand() -> None:
    """The rules above are worth what this helper sees: a lazy import deep in the command line must be among it."""
    file = next(f for f in product_files() if module_of(f) == "pyswarm.manager.store.watch")
    assert {"asyncio", "threading", "pyswarm.manager.store.snapshot"} <= {name for name, _ in imports_of(file)}
    reached = {name for _, name, _ in chains_from("pyswarm.manager.store.store")}
    assert {"asyncio", "immutables", "msgspec", "logging"} <= {top_level(n) for n in reached}
