"""Docker and podman, as Debian ships them, run their containers through `pyswarm-oci`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lib import oci_peers
from lib.oci_command import PROGRAM

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]
Driver = oci_peers.Docker | oci_peers.Podman
_PARENT = f"pyswarm-drivers-{os.getpid()}"


@pytest.fixture(scope="module", params=["docker", "podman"])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, layer: Path) -> Iterator[Driver]:
    oci_peers.install()
    folder = tmp_path_factory.mktemp(request.param)
    kind = oci_peers.Docker if request.param == "docker" else oci_peers.Podman
    with oci_peers.private_view(folder / "cgroup"):
        running: Driver = kind(folder, layer, _PARENT, runtime=PROGRAM)
        try:
            yield running
        finally:
            running.close()
            oci_peers.remove_cgroups(_PARENT)
    # podman names its cgroups by relative paths.
    assert list(Path("/sys/fs/cgroup").glob(f"*/pyswarm-oci/{_PARENT}")) == []


def run(driver: Driver, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(driver.command(*words), capture_output=True, text=True, timeout=60, check=False)


def test_it_runs_containers_to_their_end(driver: Driver) -> None:
    script = "echo hello; id -u; grep Seccomp: /proc/self/status; exit 5"
    done = run(driver, "run", "--rm", *driver.limits, "bench:latest", "/bin/sh", "-c", script)
    assert done.stdout.split() == ["hello", "0", "Seccomp:", "2"]
    assert done.returncode == 5


def test_it_gives_them_users_volumes_and_read_only_roots(driver: Driver, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "word").write_text("given\n")
    script = "id -u; cat /volume/word; touch /volume/x 2>/dev/null || echo ro; touch /y 2>/dev/null || echo ro"
    options = ["--user", "1000", "--read-only", "--volume", f"{tmp_path}:/volume:ro", *driver.limits]
    done = run(driver, "run", "--rm", *options, "bench:latest", "/bin/sh", "-c", script)
    assert done.stdout.split() == ["1000", "given", "ro", "ro"], done.stderr


def test_it_drives_a_container_through_its_life(driver: Driver) -> None:
    assert (
        run(driver, "run", "--detach", "--name", "life", *driver.limits, "bench:latest", "sleep", "1000").returncode
        == 0
    )
    done = run(driver, "exec", "life", "/bin/sh", "-c", "hostname >/dev/null; echo inside; exit 4")
    assert (done.stdout, done.returncode) == ("inside\n", 4)
    assert "sleep 1000" in run(driver, "top", "life").stdout
    for words in (("pause", "life"), ("unpause", "life"), ("stop", "--time", "1", "life"), ("start", "life")):
        done = run(driver, *words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert run(driver, "rm", "--force", "life").returncode == 0


def test_it_gives_them_terminals(driver: Driver) -> None:
    command = driver.command("run", "--rm", "--tty", *driver.limits, "bench:latest", "/bin/tty")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "/dev/" in done.stdout, done.stderr
    assert done.returncode == 0


def test_it_is_told_why_a_program_cannot_be_executed(driver: Driver) -> None:
    done = run(driver, "run", "--rm", *driver.limits, "bench:latest", "nosuch")
    assert done.returncode == 127
    assert '"nosuch": executable file not found in $PATH' in done.stderr
