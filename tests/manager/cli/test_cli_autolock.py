"""`init --autolock`, `update --autolock`, `unlock`, `unlock-key`: Docker's words, and no key where it can be seen."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lib.fake_control import FakeControl
from lib.fake_supervisor import FakeSupervisor, serving_supervisor
from msgspec.structs import replace

from pyswarm.manager.cli.commands import unlock as unlock_commands
from pyswarm.proto.model.spec import ClusterSpec
from pyswarm.proto.unlock_key import format_unlock_key
from pyswarm.proto.v1 import control_pb2 as pb

KEY = format_unlock_key(b"k" * 32)

HOW_TO_UNLOCK = (
    "To unlock a swarm manager after it restarts, run the `pyswarm unlock`\n"
    "command and provide the following key:\n\n"
    "    {}\n\n"
    "Remember to store this key in a password manager, since without it you\n"
    "will not be able to restart the manager.\n"
)

STATUS = {"ok": True, "node_id": "n1", "cluster_id": "cluster1", "role": "manager", "daemons": []}


@pytest.fixture
def pyswarmd(pyswarm: Any) -> Iterator[FakeSupervisor]:
    answers = {
        "status": [STATUS],
        "init": [{"ok": True, "node_id": "n1", "cluster_id": "cluster1"}],
        "unlock": [{"progress": "waiting for the manager"}, {"ok": True}],
    }
    fake = FakeSupervisor(answers)
    pyswarm.paths.node_file.parent.mkdir(parents=True)
    pyswarm.paths.node_file.write_text(json.dumps({"role": "manager"}))
    with serving_supervisor(pyswarm.paths.supervisor_socket, fake):
        yield fake


def autolocked(control: FakeControl, key: bytes = b"k" * 32) -> None:
    control.cluster = replace(control.cluster, spec=ClusterSpec(autolock=True), unlock_key=key)


def test_init_prints_the_key_of_a_cluster_that_is_locked_from_the_beginning(
    pyswarm: Any, pyswarmd: FakeSupervisor, control: FakeControl
) -> None:
    autolocked(control)
    said = pyswarm.ok("init", "--autolock", "--advertise-addr", "10.0.0.1")
    assert said.endswith(f"follow the instructions.\n\n{HOW_TO_UNLOCK.format(KEY)}")
    assert pyswarmd.asked[-1]["autolock"] is True


@pytest.mark.parametrize("words", [["--autolock"], ["--autolock=true"], ["--autolock", "true"]])
def test_update_turns_the_lock_on_and_prints_the_key_once(pyswarm: Any, control: FakeControl, words: list[str]) -> None:
    said = pyswarm.ok("swarm", "update", *words)
    assert said == f"Swarm updated.\n\n{HOW_TO_UNLOCK.format(format_unlock_key(control.cluster.unlock_key))}"
    assert pyswarm.ok("update", "--autolock", "--task-history-limit", "3") == "Swarm updated.\n"
    assert control.cluster.spec == ClusterSpec(task_history_retention_limit=3, autolock=True)


def test_update_turns_the_lock_off_and_leaves_the_rest(pyswarm: Any, control: FakeControl) -> None:
    autolocked(control)
    assert pyswarm.ok("update", "--autolock=false") == "Swarm updated.\n"
    assert control.cluster.spec == ClusterSpec()
    assert pyswarm.fails("unlock-key").startswith("Error: no unlock key is set")


def test_update_writes_over_what_it_has_seen_only(pyswarm: Any, control: FakeControl) -> None:
    control.cluster = replace(control.cluster, version=41)
    pyswarm.ok("update", "--cert-expiry", "48h")
    asked = control.asked(pb.UpdateClusterRequest)
    assert (asked.version, asked.spec.node_cert_expiry_seconds, asked.spec.autolock) == (41, 172800.0, False)


def test_update_with_nothing_to_do_shows_its_help(pyswarm: Any) -> None:
    assert "--autolock" in pyswarm.ok("update")


def test_unlock_key_shows_and_rotates(pyswarm: Any, control: FakeControl) -> None:
    autolocked(control)
    assert pyswarm.ok("unlock-key") == HOW_TO_UNLOCK.format(KEY)
    assert pyswarm.ok("unlock-key", "-q") == f"{KEY}\n"
    rotated = pyswarm.ok("unlock-key", "--rotate")
    fresh = format_unlock_key(control.cluster.unlock_key)
    assert fresh != KEY
    assert rotated == f"Successfully rotated manager unlock key.\n\n{HOW_TO_UNLOCK.format(fresh)}"
    assert pyswarm.ok("unlock-key", "--rotate", "-q") == f"{format_unlock_key(control.cluster.unlock_key)}\n"


def test_unlock_reads_the_key_from_standard_input(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    assert pyswarm.ok("unlock", input=f" {KEY} \n") == ""
    assert pyswarmd.asked[-1] == {"op": "unlock", "key": KEY}


def test_unlock_prompts_on_a_terminal_without_an_echo(
    pyswarm: Any, pyswarmd: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unlock_commands, "_is_terminal", lambda: True)
    said = pyswarm.ok("unlock", input=f"{KEY}\n")
    assert "Enter unlock key" in said
    assert KEY not in said
    assert pyswarmd.asked[-1]["key"] == KEY


def test_what_is_no_key_is_refused_before_anybody_is_asked(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    said = pyswarm.run("unlock", input="hunter2\n")
    assert said.status == 1
    assert said.err.startswith("Error: this is not an unlock key")
    assert "hunter2" not in said.err
    assert pyswarmd.asked == []


def test_a_wrong_key_is_an_error_with_a_remedy(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    refusal = {"ok": False, "code": "locked", "message": "the unlock key does not open it", "remedy": "Give another."}
    pyswarmd.answers["unlock"] = [refusal]
    said = pyswarm.run("unlock", input=KEY)
    assert (said.status, said.err) == (1, "Error: the unlock key does not open it\nGive another.\n")


def test_a_locked_manager_is_told_with_its_remedy(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    pyswarmd.answers["status"] = [{**STATUS, "locked": True}]
    remedy = "Run `pyswarm unlock` on this node and give the unlock key."
    assert pyswarm.fails("node", "ls") == (
        f"Error: this node's manager is locked: it needs to be unlocked before it can be used\n{remedy}\n"
    )
    said = pyswarm.ok("info")
    assert "Swarm:              locked\n" in said
    assert remedy in said


def test_a_manager_that_does_not_run_is_not_called_locked(pyswarm: Any, pyswarmd: FakeSupervisor) -> None:
    assert pyswarm.fails("node", "ls").startswith("Error: this node's manager does not run\nSee `pyswarm info`")
