"""Other runtimes, as Debian ships them, to be measured beside ours: crun, runc, podman and docker.

Each peer runs busybox from the same directory with what our containers get: namespaces of its own, the containers
project's default seccomp profile, docker's capabilities, limits of memory, processes and CPU. They keep everything
under one folder and one cgroup parent; `close` removes both. Nothing is mounted, and no firewall rule made, outside
the caller's own mount namespace (see `private_view`).
"""

import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from lib.oci_bundle import CPUS, MEMORY_BYTES, PIDS, oci_config

from pyswarm.agent_runtime.kernel import cgroup_layout, syscalls
from pyswarm.agent_runtime.kernel import numbers as n

PACKAGES = ("crun", "runc", "podman", "docker.io")
TRUE = ("/bin/true",)
SLEEP = ("/bin/sleep", "3600")
_CONFINED = "grep -Eq 'CapEff:.00000000(a80425fb|800405fb)' $0 && grep -q 'Seccomp:.2' $0"
CONFINED = ("/bin/sh", "-c", _CONFINED, "/proc/self/status")
"""Succeeds with a seccomp filter and docker's capabilities, or podman's: a race is fair when all carry the same."""
_DAEMON_SECONDS = 30.0
_CLONE_FS, _MS_BIND = 0x200, 0x1000


def install() -> None:
    """Install the peers' Debian packages; their services are not started."""
    script = Path(__file__).parents[2] / "deploy/install-prerequisites.sh"
    subprocess.run([str(script), *PACKAGES], check=True)


@contextmanager
def private_view(scratch: Path) -> Iterator[None]:
    """Give this thread, and what it starts, a mount namespace in which crun 1.8 accepts the machine's cgroups.

    It refuses v1 hierarchies with a v2 one beside them: there, /sys/fs/cgroup shows the v1 ones only.
    """
    layout = cgroup_layout.detect()
    outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.unshare(n.CLONE_NEWNS)
    syscalls.mount("none", "/", "", n.MS_REC | n.MS_PRIVATE)
    try:
        if layout.v1 and layout.unified:
            _show_v1_only(scratch)
        yield
    finally:
        syscalls.unshare(_CLONE_FS)  # whoever shares its root directory with other threads may not change it
        syscalls.syscall("setns", outside, n.CLONE_NEWNS)
        os.close(outside)


def _show_v1_only(scratch: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4]) for line in lines if line.partition(" - ")[2].startswith("cgroup ")]
    scratch.mkdir()
    syscalls.mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
    for point in points:
        (scratch / point.name).mkdir()
        syscalls.mount(str(point), scratch / point.name, "none", _MS_BIND)
    syscalls.mount(str(scratch), points[0].parent, "none", _MS_BIND | n.MS_REC)


def execute(command: Sequence[str], *, environment: dict[str, str] | None = None) -> None:
    """Run a command to its end with as little of Python around it as can be. Raises RuntimeError when it fails."""
    program = shutil.which(command[0])
    assert program is not None, command[0]
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)]
    pid = os.posix_spawn(program, command, environment or dict(os.environ), file_actions=silent)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")


class Peer(Protocol):
    name: str

    def run(self, container: str, args: tuple[str, ...] = TRUE) -> None:
        """The whole life of a container: create, start, wait, delete. Raises RuntimeError when it fails."""

    def close(self) -> None: ...


class CommandLine:
    """crun or runc: `run` does the whole life in one process; `create`, `start` and `delete` do it in three."""

    def __init__(self, name: str, folder: Path, layer: Path, cgroup_parent: str) -> None:
        self.name = name
        self._folder = folder / name
        self._layer = layer
        self._parent = cgroup_parent
        self._command = [name, "--root", str(self._folder / "state")]
        self._folder.mkdir()

    def _bundle(self, container: str, args: tuple[str, ...]) -> str:
        """Make the bundle of a container, once: to have it made for them is these runtimes' privilege."""
        folder = self._folder / f"{container}-{'true' if args == TRUE else 'other'}"
        if not folder.exists():
            folder.mkdir()
            config = oci_config(self._layer, f"/{self._parent}/{container}", args=args)
            (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    def prepare(self, container: str) -> None:
        """Make a bundle ahead of time."""
        self._bundle(container, TRUE)

    def run(self, container: str, args: tuple[str, ...] = TRUE) -> None:
        execute([*self._command, "run", "--bundle", self._bundle(container, args), container])

    def create(self, container: str, args: tuple[str, ...] = TRUE) -> None:
        execute([*self._command, "create", "--bundle", self._bundle(container, args), container])

    def start(self, container: str) -> None:
        execute([*self._command, "start", container])

    def execute(self, container: str) -> None:
        """Run `true` in a running container."""
        execute([*self._command, "exec", container, *TRUE])

    def delete(self, container: str) -> None:
        execute([*self._command, "delete", "--force", container])

    def close(self) -> None:
        shutil.rmtree(self._folder)


class Podman:
    """podman with its own storage, its containers run by Debian's default for it, crun, or by `runtime`."""

    name = "podman"

    def __init__(self, folder: Path, layer: Path, cgroup_parent: str, *, runtime: Path | None = None) -> None:
        self._folder = folder / "podman"
        self._command = [
            "podman", "--root", str(self._folder / "storage"), "--runroot", str(self._folder / "run"),
            "--tmpdir", str(self._folder / "tmp"), "--cgroup-manager", "cgroupfs", "--events-backend", "none",
            *(["--runtime", str(runtime)] if runtime else []),
        ]  # fmt: skip
        self._parent = cgroup_parent
        self._folder.mkdir()
        execute([*self._command, "import", "--quiet", str(_archive(layer, self._folder)), "bench:latest"])

    def run(self, container: str, args: tuple[str, ...] = TRUE) -> None:
        execute(self.command("run", "--rm", "--name", container, *self.limits, "bench:latest", *args))

    def command(self, *words: str) -> list[str]:
        return [*self._command, *words]

    @property
    def limits(self) -> list[str]:
        # Without the right to raise limits podman cannot set those it has by default.
        own = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--log-driver", "k8s-file"]
        return [*_limit_options(self._parent), *own]

    def close(self) -> None:
        _unmount_below(self._folder)
        shutil.rmtree(self._folder)


class Docker:
    """dockerd on a unix socket, without bridge or firewall; `docker run` as people type it. `runtime` replaces runc."""

    name = "docker"

    def __init__(self, folder: Path, layer: Path, cgroup_parent: str, *, runtime: Path | None = None) -> None:
        self._folder = folder / "docker"
        self._folder.mkdir()
        self._parent = cgroup_parent
        address = f"unix://{self._folder}/docker.sock"
        self._command = ["/usr/bin/docker", "--host", address]
        command = [
            "/usr/sbin/dockerd", "--host", address, "--data-root", str(self._folder / "data"),
            "--exec-root", str(self._folder / "exec"), "--pidfile", str(self._folder / "dockerd.pid"),
            "--iptables=false", "--ip6tables=false", "--bridge=none", "--cgroup-parent", f"/{cgroup_parent}",
            *([f"--add-runtime=ours={runtime}", "--default-runtime=ours"] if runtime else []),
        ]  # fmt: skip
        with (self._folder / "log").open("wb") as log:
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait_ready()
            execute([*self._command, "import", str(_archive(layer, self._folder)), "bench:latest"])
        except BaseException:
            self.close()
            raise

    def _wait_ready(self) -> None:
        # The daemon says in its log that it listens: there is nothing else to wait on.
        with (self._folder / "log").open() as log:
            follow = subprocess.Popen(["tail", "-f", "-n", "+1", log.name], stdout=subprocess.PIPE, text=True)
        assert follow.stdout is not None
        signal.signal(signal.SIGALRM, lambda *_: follow.kill())
        signal.setitimer(signal.ITIMER_REAL, _DAEMON_SECONDS)
        try:
            if not any("API listen on" in line for line in follow.stdout):
                raise RuntimeError(f"dockerd did not start:\n{(self._folder / 'log').read_text()}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            follow.kill()
            follow.wait()
            follow.stdout.close()

    @property
    def pids(self) -> list[int]:
        """The daemon and the containerd it started."""
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        return [self._daemon.pid, *map(int, children)]

    def run(self, container: str, args: tuple[str, ...] = TRUE) -> None:
        execute(self.command("run", "--rm", "--name", container, *self.limits, "bench:latest", *args))

    def command(self, *words: str) -> list[str]:
        return [*self._command, *words]

    @property
    def limits(self) -> list[str]:
        return _limit_options(f"/{self._parent}")

    def close(self) -> None:
        if self._daemon.poll() is None:
            self._daemon.terminate()  # it stops its containerd itself
            try:
                self._daemon.wait(20)
            except subprocess.TimeoutExpired:
                for pid in reversed(self.pids):
                    os.kill(pid, signal.SIGKILL)
                self._daemon.wait()
        _unmount_below(self._folder)
        shutil.rmtree(self._folder)


def remove_cgroups(cgroup_parent: str) -> None:
    """Remove the parent and what the peers made below it, in every hierarchy."""
    for top in Path("/sys/fs/cgroup").iterdir():
        folders = [path for path in (top / cgroup_parent).rglob("*") if path.is_dir()]
        for folder in [*sorted(folders, reverse=True), top / cgroup_parent]:
            if folder.exists():
                folder.rmdir()


def _limit_options(cgroup_parent: str) -> list[str]:
    return [
        "--network", "none", "--cgroup-parent", cgroup_parent, "--memory", str(MEMORY_BYTES),
        "--pids-limit", str(PIDS), "--cpus", str(CPUS),
    ]  # fmt: skip


def _archive(layer: Path, folder: Path) -> Path:
    path = folder / "rootfs.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(layer, arcname=".")
    return path


def _unmount_below(folder: Path) -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        syscalls.unmount(point)
