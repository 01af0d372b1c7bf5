"""The life of a container on the OCI command line, in a real kernel."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lib.oci_command import PROGRAM, Config, OciCommand

pytestmark = pytest.mark.kernel


def test_run_gives_the_programs_output_and_exit_code_and_leaves_nothing(oci: OciCommand) -> None:
    done = oci.run("a", "/bin/sh", "-c", "echo hello; hostname; exit 7")
    assert (done.stdout, done.returncode) == ("hello\npyswarm\n", 7)
    assert json.loads(oci("list", "--format", "json")) == []


def test_a_container_waits_for_its_start_and_is_deleted_when_it_has_ended(oci: OciCommand, tmp_path: Path) -> None:
    bundle, proof = oci.bundle("a", "/bin/sh", "-c", "echo started"), tmp_path / "proof"
    with proof.open("w") as output:
        oci("create", "--bundle", str(bundle), "--pid-file", str(tmp_path / "pid"), "a", stdout=output, stderr=output)
    state = oci.state("a")
    assert (state["status"], state["bundle"]) == ("created", str(bundle))
    assert state["pid"] == int((tmp_path / "pid").read_text())
    assert proof.read_text() == ""
    pidfd = os.pidfd_open(state["pid"])
    oci("start", "a")
    _wait(pidfd)
    assert proof.read_text() == "started\n"
    assert oci.state("a")["status"] == "stopped"
    oci("delete", "a")
    assert oci.attempt("state", "a").returncode == 1


def _wait(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000)
    os.close(pidfd)


def test_what_a_status_does_not_allow_is_refused_with_the_reason(oci: OciCommand) -> None:
    oci.start("a", "/bin/sleep", "1000")
    for words, reason in (
        (("start", "a"), "it is running"),
        (("delete", "a"), "not stopped, but running"),
        (("resume", "a"), "it is running"),
        (("create", "--bundle", str(oci.folder / "bundle-a"), "a"), "already exists"),
    ):
        done = oci.attempt(*words)
        assert done.returncode == 1
        assert reason in done.stderr
    pidfd = os.pidfd_open(oci.state("a")["pid"])
    oci("kill", "a", "KILL")
    _wait(pidfd)
    assert "already finished" in oci.attempt("kill", "a", "TERM").stderr


def test_a_paused_container_stands_still_and_can_be_killed(oci: OciCommand) -> None:
    oci.start("a", "/bin/sleep", "1000")
    oci("pause", "a")
    assert oci.state("a")["status"] == "paused"
    pidfd = os.pidfd_open(oci.state("a")["pid"])
    oci("kill", "a", "SIGKILL")
    _wait(pidfd)
    assert oci.state("a")["status"] == "stopped"


def test_kill_all_reaches_every_process(oci: OciCommand) -> None:
    oci.start("a", "/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait")
    pids = json.loads(oci("ps", "--format", "json", "a"))
    watched = [os.pidfd_open(pid) for pid in pids]
    oci("kill", "--all", "a", "9")
    for pidfd in watched:
        _wait(pidfd)


def test_a_program_that_does_not_exist_is_told_by_create_and_in_the_log(oci: OciCommand, tmp_path: Path) -> None:
    bundle, log = oci.bundle("a", "nosuch"), tmp_path / "log"
    flags = ["--root", str(oci.root), "--log", str(log), "--log-format", "json"]
    command = [str(PROGRAM), *flags, "create", "--bundle", str(bundle), "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    entry = json.loads(log.read_text())
    assert entry["level"] == "error"
    assert entry["msg"] == 'process.args: "nosuch": executable file not found in $PATH'
    assert not (oci.root / "a").exists()


def test_a_program_that_cannot_be_executed_is_told_by_start(oci: OciCommand, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nosuch\n")
    script.chmod(0o755)

    def bind(config: Config) -> None:
        config["mounts"].append({"destination": "/tmp", "type": "bind", "source": str(tmp_path), "options": ["rbind"]})

    oci.create("a", "/tmp/script", edit=bind)
    done = oci.attempt("start", "a")
    assert done.returncode == 127
    assert 'process.args: cannot execute "/tmp/script": no such file or directory in the rootfs' in done.stderr
    assert oci.state("a")["status"] == "stopped"


def test_a_failed_create_names_the_field_and_leaves_nothing(oci: OciCommand) -> None:
    def unmountable(config: Config) -> None:
        config["mounts"].append({"destination": "/mnt", "type": "nosuchfs", "source": "x"})

    index = 7
    done = oci.run("a", "/bin/true", edit=unmountable)
    assert done.returncode == 128
    assert f"config.json: mounts[{index}]: cannot mount nosuchfs on /mnt: No such device" in done.stderr
    assert not (oci.root / "a").exists()


@contextmanager
def hanging_creator(oci: OciCommand, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a `create` of `a` that has come as far as its first hook; at the end it is killed."""
    told, poststop = tmp_path / "told", tmp_path / "poststop"
    os.mkfifo(told)

    def hang(config: Config) -> None:
        script = f"cat > /dev/null; echo here > {told}; sleep 1000"
        config["hooks"] = {
            "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}],
            "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {poststop}"]}],
        }

    bundle = oci.bundle("a", "/bin/true", edit=hang)
    command = [str(PROGRAM), "--root", str(oci.root), "create", "--bundle", str(bundle), "a"]
    creator = subprocess.Popen(command, start_new_session=True)
    assert told.read_text() == "here\n"
    children = Path(f"/proc/{creator.pid}/task/{creator.pid}/children").read_text().split()
    watched = [os.pidfd_open(int(pid)) for pid in children]
    assert len(watched) == 2
    try:
        yield creator
    finally:
        creator.kill()
        creator.wait()
        os.killpg(creator.pid, signal.SIGKILL)  # the hook, which is no business of ours
        for pidfd in watched:
            _wait(pidfd)


def _is_left(oci: OciCommand) -> bool:
    cgroups = list(Path("/sys/fs/cgroup").glob(f"*/pyswarm-oci-test-{os.getpid()}/a"))
    assert bool(cgroups) == (oci.root / "a").exists()
    return bool(cgroups)


@pytest.mark.parametrize("words", [("delete", "a"), ("delete", "--force", "a")], ids=" ".join)
def test_what_a_killed_creator_left_can_be_deleted(oci: OciCommand, tmp_path: Path, words: tuple[str, ...]) -> None:
    with hanging_creator(oci, tmp_path):
        pass
    assert (oci("list", "--quiet"), _is_left(oci)) == ("", True)
    oci(*words)
    assert not _is_left(oci)
    # Its hooks had begun: what they made is undone.
    assert json.loads((tmp_path / "poststop").read_text())["status"] == "stopped"


def test_what_a_killed_creator_left_gives_way_to_the_next(oci: OciCommand, tmp_path: Path) -> None:
    with hanging_creator(oci, tmp_path):
        pass
    oci("run", "--bundle", str(oci.bundle("b", "/bin/true")), "a")
    assert not _is_left(oci)


def test_a_creator_that_lives_is_left_alone(oci: OciCommand, tmp_path: Path) -> None:
    with hanging_creator(oci, tmp_path) as creator:
        assert "already exists" in oci.attempt("create", "--bundle", str(oci.bundle("b", "/bin/true")), "a").stderr
        assert "does not exist" in oci.attempt("delete", "a").stderr
        oci("delete", "--force", "a")
        assert (_is_left(oci), creator.poll(), oci("list", "--quiet")) == (True, None, "")
    oci("delete", "a")


def test_a_process_that_waits_is_no_more_when_what_its_creator_left_is_deleted(oci: OciCommand) -> None:
    oci.create("a", "/bin/true")
    waiting = os.pidfd_open(oci.state("a")["pid"])
    # As if it had been killed between the two.
    (oci.root / "a/state.json").unlink()
    oci("delete", "a")
    _wait(waiting)
    assert not _is_left(oci)


def test_descriptors_are_passed_on_when_wanted_and_none_else(oci: OciCommand, tmp_path: Path) -> None:
    bundle, passed = oci.bundle("a", "/bin/sh", "-c", "echo passed >&3; ls /proc/self/fd"), tmp_path / "passed"
    # A shell opens descriptor 3: in our own process it may be somebody's.
    words = [str(PROGRAM), "--root", str(oci.root), "run", "--preserve-fds", "1", "--bundle", str(bundle), "a"]
    command = ["/bin/sh", "-c", f'exec "$0" "$@" 3>{passed}', *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert passed.read_text() == "passed\n"
    assert done.stdout.split()[:4] == ["0", "1", "2", "3"]
    assert len(done.stdout.split()) == 5  # and ls's own


def test_exec_joins_everything_and_gives_the_exit_code(oci: OciCommand) -> None:
    oci.start("a", "/bin/sleep", "1000")
    done = oci.attempt("exec", "--env", "X=1", "--cwd", "/tmp", "a", "/bin/sh", "-c", "echo $X; pwd; hostname; exit 4")
    assert (done.stdout, done.returncode) == ("1\n/tmp\npyswarm\n", 4)
    script = "for link in /proc/$0/ns/*; do readlink $link; done"
    own, first = (oci("exec", "a", "/bin/sh", "-c", script, process) for process in ("self", "1"))
    assert own == first
    assert len(own.split()) >= 7
    assert oci("exec", "--user", "5:6", "a", "id", "-u").strip() == "5"
    assert "not found in $PATH" in oci.attempt("exec", "a", "nosuch").stderr
    assert oci.attempt("exec", "a", "nosuch").returncode == 127
    assert "--user 'x'" in oci.attempt("exec", "--user", "x", "a", "id").stderr


def test_exec_gives_a_terminal(oci: OciCommand) -> None:
    oci.start("a", "/bin/sleep", "1000")
    assert oci("exec", "--tty", "a", "tty").strip() == "/dev/pts/0"


def test_limits_can_be_changed_and_usage_seen(oci: OciCommand) -> None:
    oci.start("a", "/bin/sleep", "1000")
    oci("update", "--pids-limit", "17", "--memory", "64m", "a")
    data = json.loads(oci("events", "--stats", "a"))["data"]
    assert (data["pids"]["limit"], data["memory"]["usage"]["limit"]) == (17, 64 << 20)
    assert data["pids"]["current"] == 1
    oci("update", "--resources", "-", "a", stdin=None, input='{"memory": {"limit": 33554432}}')
    assert json.loads(oci("events", "--stats", "a"))["data"]["memory"]["usage"]["limit"] == 32 << 20
    assert "resources" in oci.attempt("update", "--resources", "-", "a", stdin=None, input='{"pids": 5}').stderr
    assert "running" in oci("list")
    assert "sleep 1000" in oci("ps", "a")
