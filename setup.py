"""Build hooks: map folders to `pyswarm.*` packages and generate the protocol's code.

`pyproject.toml` holds everything declarative. Three things need code: the package list (every
folder with an `__init__.py` under a room), protobuf generation before files are collected, and the C executor.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
ROOMS = ("proto", "manager", "worker", "agent_runtime", "deploy")


def packages() -> dict[str, str]:
    """Return {import path: folder} for every package of every room."""
    found = {}
    for room in ROOMS:
        for init in sorted((ROOT / room).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT).as_posix()
            found["pyswarm." + folder.replace("/", ".")] = folder
    return found


class BuildWithProtocol(build_py):
    """Generate `proto/v1/*_pb2*.py(i)` before the package files are collected."""

    def run(self) -> None:
        from runpy import run_path

        run_path(str(ROOT / "proto" / "generate.py"))["generate"]()
        super().run()


# Optional: without a compiler, or on an architecture it has no stubs for, containers are started by Python alone.
EXECUTOR = Extension(
    "pyswarm.agent_runtime.kernel._executor",
    sources=["agent_runtime/kernel/_executor.c"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror"],
    optional=True,
)

setup(
    ext_modules=[EXECUTOR],
    packages=list(packages()),
    package_dir=packages(),
    package_data={"": ["*.pyi", "py.typed", "*.json", "*.proto", "*.c"]},
    cmdclass={"build_py": BuildWithProtocol},
)
