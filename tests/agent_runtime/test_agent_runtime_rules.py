"""Rules of this room that the house's own tests do not know."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from lib.source import ROOT

FORKS = {"os.fork", "os.forkpty", "pty.fork", "os.system", "os.popen"}


def sources() -> list[Path]:
    return sorted((ROOT / "agent_runtime").rglob("*.py"))


def test_the_daemon_never_forks() -> None:
    # gRPC's threads make a fork undefined: processes are started with posix_spawn only. The OCI command line is a
    # program of its own, with one thread.
    found = []
    for path in [path for path in sources() if path.parent.name != "oci"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in FORKS:
                found.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                if any(name.split(".")[0] in ("subprocess", "multiprocessing", "pty") for name in names):
                    found.append(f"{path}:{node.lineno}")
    assert found == []


def test_the_daemon_never_imports_the_command_line_nor_that_one_the_daemon() -> None:
    found = []
    for path in sources():
        text, is_command_line = path.read_text(), path.parent.name == "oci"
        foreign = (
            ("agent_runtime.container", "agent_runtime.service", "grpc") if is_command_line else ("agent_runtime.oci",)
        )
        found += [f"{path}: {name}" for name in foreign if f"from pyswarm.{name}" in text or f"import {name}" in text]
    assert found == []


def test_system_calls_are_made_in_the_kernel_folder_only() -> None:
    users = [str(path) for path in sources() if "ctypes" in path.read_text() and path.parent.name != "kernel"]
    assert users == []


def test_the_spawner_imports_nothing_but_the_standard_library_and_little_of_it() -> None:
    script = (
        "import sys, runpy, json; runpy.run_path(sys.argv[1], run_name='imported');"
        "print(json.dumps(sorted(sys.modules)))"
    )
    main = ROOT / "agent_runtime/container/spawner_main.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-E", "-c", script, str(main)], capture_output=True, text=True, check=True
    )
    modules = set(json.loads(done.stdout))
    assert not {"asyncio", "grpc", "logging", "threading", "msgspec", "google", "subprocess"} & modules
    ours = {name for name in modules if name.startswith("pyswarm.") and name.count(".") > 2}
    assert ours - {"pyswarm.agent_runtime.kernel._executor"} == {
        "pyswarm.agent_runtime.container.spawner",
        "pyswarm.agent_runtime.container.spawner_protocol",
        *(f"pyswarm.agent_runtime.kernel.{name}" for name in ("executor", "numbers", "process", "program")),
        *(f"pyswarm.agent_runtime.kernel.{name}" for name in ("small_files", "syscalls")),
    }
