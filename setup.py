"""Build hooks: map folders to `pyswarm.*` packages and generate the protocol's code.

`pyproject.toml` holds everything declarative. Three things need code: the package list (every
folder with an `__init__.py` under a room), protobuf generation before files are collected, and what is written in C:
the executor, work on files, the init of containers that ask for one, and what writes the journal.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError, LinkError

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
# Optional as well: without it, the runtime's threads take turns at each system call.
UNLOCKED = Extension(
    "pyswarm.agent_runtime.kernel._unlocked",
    sources=["agent_runtime/kernel/_unlocked.c"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror"],
    optional=True,
)
# Optional as well: without it, a Python thread writes the journal.
DISK_WRITER = Extension(
    "pyswarm.manager.raft._disk_writer",
    sources=["manager/raft/_disk_writer.c"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror"],
    optional=True,
)

INIT_SOURCE = "agent_runtime/kernel/_init.c"
FREESTANDING = [
    "-Os", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-pie", "-U_FORTIFY_SOURCE",
]  # fmt: skip
LINKED = ["-static", "-nostdlib", "-no-pie", "-s", "-Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096"]


class BuildWithInit(build_ext):
    """Compile the init of containers beside the executor. Without a compiler there is none, as with the executor."""

    def run(self) -> None:
        super().run()
        for target in self._inits():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                objects = self.compiler.compile(
                    [INIT_SOURCE], output_dir=self.build_temp, extra_postargs=[*FREESTANDING, "-Wall", "-Wextra"]
                )
                # As nothing else is linked: setuptools' own linker flags are for libraries.
                self.spawn([*self.compiler.compiler, *FREESTANDING, *LINKED, *objects, "-o", str(target)])
            except (CompileError, LinkError, OSError) as error:
                self.warn(f"containers cannot be given an init: {error}")

    def _inits(self) -> list[Path]:
        """Return where it goes: beside the modules, and beside the sources where those are what runs."""
        module = EXECUTOR.name.rpartition(".")[0]
        built = Path(self.build_lib, *module.split("."), "pyswarm-init")
        return [ROOT / packages()[module] / "pyswarm-init"] if self.editable_mode or self.inplace else [built]

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), *(str(path) for path in self._inits() if path.exists())]


setup(
    ext_modules=[EXECUTOR, UNLOCKED, DISK_WRITER],
    packages=list(packages()),
    package_dir=packages(),
    package_data={"": ["*.pyi", "py.typed", "*.json", "*.proto", "*.c"]},
    cmdclass={"build_py": BuildWithProtocol, "build_ext": BuildWithInit},
)
