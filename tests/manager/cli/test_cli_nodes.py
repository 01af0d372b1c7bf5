"""`pyswarm node …`: Swarm's columns, keys and words."""

import json
from typing import Any

import pytest
from lib.builders import a_node, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.proto.model.objects import ManagerStatus, NodeDescription
from pyswarm.proto.model.states import Availability, NodeState, Reachability, Role
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import types_pb2


@pytest.fixture
def nodes(control: Any) -> Any:
    m1 = a_node("n1", hostname="m1", role=Role.MANAGER, addr="10.0.0.1")
    m1 = replace(
        m1,
        spec=replace(m1.spec, role=Role.MANAGER, labels={"zone": "a"}),
        description=replace(m1.description, engine_version="0.1.0"),
        manager_status=ManagerStatus("r1", "10.0.0.1:2377", Reachability.REACHABLE, leader=True),
    )
    m2 = replace(
        a_node("n2", hostname="m2", role=Role.MANAGER),
        manager_status=ManagerStatus("r2", "10.0.0.2:2377", Reachability.UNREACHABLE),
    )
    w1 = a_node("n3", hostname="w1", state=NodeState.DOWN, availability=Availability.DRAIN)
    control.add(m1, m2, replace(w1, description=replace(w1.description, engine_version="0.1.0")))
    return control


def test_ls_is_dockers_table_with_a_star_at_the_node_that_answers(pyswarm: Any, nodes: Any) -> None:
    assert pyswarm.ok("node", "ls") == (
        "ID        HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION\n"
        "n1 *      m1         Ready     Active         Leader           0.1.0\n"
        "n2        m2         Ready     Active         Unreachable\n"
        "n3        w1         Down      Drain                           0.1.0\n"
    )


def test_ls_in_json_is_one_object_a_line_with_dockers_keys(pyswarm: Any, nodes: Any) -> None:
    rows = [json.loads(line) for line in pyswarm.ok("node", "ls", "--format", "json").splitlines()]
    assert rows[0] == {
        "ID": "n1",
        "Hostname": "m1",
        "Status": "Ready",
        "Availability": "Active",
        "ManagerStatus": "Leader",
        "EngineVersion": "0.1.0",
        "Self": True,
        "TLSStatus": "Ready",
    }
    assert [row["Self"] for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-q"], "n1\nn2\nn3\n"),
        (["--format", "{{.ID}} {{.Hostname}}"], "n1 m1\nn2 m2\nn3 w1\n"),
        (["--format", "{{upper .Hostname}}\\t{{.Self}}", "--filter", "id=n1"], "M1\ttrue\n"),
        (["--filter", "role=worker", "-q"], "n3\n"),
        (["--filter", "name=m2", "--filter", "name=w1", "-q"], "n2\nn3\n"),
        (["--filter", "node.label=zone", "-q"], "n1\n"),
        (["--filter", "node.label=zone=b", "-q"], ""),
        (
            ["--format", "table {{.Hostname}}\\t{{.Status}}", "--filter", "id=n1"],
            "HOSTNAME   STATUS\nm1         Ready\n",
        ),
    ],
)
def test_ls_prints_what_is_asked_for(pyswarm: Any, nodes: Any, words: list[str], expected: str) -> None:
    assert pyswarm.ok("node", "ls", *words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filter", "colour=red"], 'Error: invalid filter "colour=red"\nFilters here: id, name, role'),
        (["--format", "{{.Nope}}"], "Error: template: there is no field .Nope\nThere are: ID, Hostname"),
        (["--format", "{{range .}}"], "Error: template action {{range .}} is not supported"),
        (["--format", "{{.ID"], "has an action that is not closed"),
    ],
)
def test_ls_says_what_is_wrong_with_a_filter_or_template(
    pyswarm: Any, nodes: Any, words: list[str], message: str
) -> None:
    assert message in pyswarm.fails("node", "ls", *words)


def test_inspect_prints_dockers_json(pyswarm: Any, nodes: Any) -> None:
    (found,) = json.loads(pyswarm.ok("node", "inspect", "self"))
    assert found["ID"] == "n1"
    assert found["Spec"] == {"Labels": {"zone": "a"}, "Role": "manager", "Availability": "active"}
    assert found["Description"]["Resources"] == {"NanoCPUs": 4_000_000_000, "MemoryBytes": 8 << 30}
    assert found["ManagerStatus"] == {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}
    assert pyswarm.ok("node", "inspect", "m1", "--format", "{{.Status.State}} {{.Spec.Role}}") == "ready manager\n"


def test_inspect_for_people(pyswarm: Any, nodes: Any) -> None:
    assert pyswarm.ok("node", "inspect", "--pretty", "m1") == (
        "ID:                 n1\n"
        "Labels:\n"
        " zone:              a\n"
        "Hostname:           m1\n"
        "Joined at:          0001-01-01T00:00:00Z\n"
        "Role:               Manager\n"
        "Status:\n"
        " State:             Ready\n"
        " Availability:      Active\n"
        " Address:           10.0.0.1\n"
        "Manager Status:\n"
        " Address:           10.0.0.1:2377\n"
        " Raft Status:       Reachable\n"
        " Leader:            Yes\n"
        "Platform:\n"
        " Operating System:  linux\n"
        " Architecture:      x86_64\n"
        "Resources:\n"
        " CPUs:              4\n"
        " Memory:            8GiB\n"
        "Engine Version:     0.1.0\n"
    )


def test_inspect_prints_what_it_found_and_fails_for_the_rest(pyswarm: Any, nodes: Any) -> None:
    said = pyswarm.run("node", "inspect", "w1", "nobody")
    assert said.status == 1
    assert [node["ID"] for node in json.loads(said.out)] == ["n3"]
    assert said.err == "Error: no such node: nobody\n`pyswarm node ls` lists what there is.\n"


def test_update_changes_only_what_is_named(pyswarm: Any, nodes: Any) -> None:
    words = ["--availability", "drain", "--label-add", "disk=ssd", "--label-rm", "zone"]
    assert pyswarm.ok("node", "update", *words, "m1") == "m1\n"
    spec = nodes.nodes["n1"].spec
    assert (spec.availability, spec.role, spec.labels) == (Availability.DRAIN, Role.MANAGER, {"disk": "ssd"})


def test_update_refuses_a_word_that_is_none(pyswarm: Any, nodes: Any) -> None:
    said = pyswarm.run("node", "update", "--availability", "asleep", "m1")
    assert said.status == 125
    assert '"asleep" is none of: active, pause, drain' in said.err
    assert nodes.requests == []


def test_promote_and_demote_say_what_they_did(pyswarm: Any, nodes: Any) -> None:
    assert pyswarm.ok("node", "promote", "w1") == "Node w1 promoted to a manager in the swarm.\n"
    assert nodes.asked(pb.UpdateNodeRequest).spec.role == types_pb2.MANAGER
    assert pyswarm.ok("node", "promote", "w1") == "Node w1 is already a manager.\n"
    assert pyswarm.ok("node", "demote", "w1") == "Manager w1 demoted in the swarm.\n"


def test_rm_goes_on_after_a_refusal_and_fails_in_the_end(pyswarm: Any, nodes: Any) -> None:
    said = pyswarm.run("node", "rm", "m2", "w1")
    assert (said.status, said.out) == (1, "w1\n")
    assert said.err == "Error: node n2 is not down\nUse --force.\n"
    assert pyswarm.ok("node", "rm", "--force", "m2") == "m2\n"
    assert set(nodes.nodes) == {"n1"}


def test_ps_lists_the_tasks_of_the_node_that_answers(pyswarm: Any, nodes: Any) -> None:
    web = a_service("web")
    nodes.add(web, a_revision(web), a_task("t1", service=web, node="n1"), a_task("t2", service=web, node="n3", slot=2))
    assert pyswarm.ok("node", "ps", "-q") == "t1\n"
    assert pyswarm.ok("node", "ps", "w1", "--format", "{{.Name}}@{{.Node}}") == "web.2@w1\n"


def test_a_name_that_is_no_node_has_a_hostname_of_nothing(pyswarm: Any, control: Any) -> None:
    control.add(replace(a_node("n9"), description=NodeDescription()))
    assert "n9" in pyswarm.ok("node", "ls")
