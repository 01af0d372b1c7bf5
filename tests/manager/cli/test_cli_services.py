"""`pyswarm service …`: what is listed, what is written, and what is refused before the network."""

import json
from pathlib import Path
from typing import Any

import pytest
from lib.builders import a_node, a_port, a_revision, a_service, a_task
from msgspec.structs import replace

from pyswarm.proto.clock import SystemClock
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.model.objects import ContainerStatus
from pyswarm.proto.model.spec import (
    ContainerSpec,
    Mount,
    PortConfig,
    ReplicatedJob,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import FailureAction, MountType, PublishMode, TaskState
from pyswarm.proto.v1 import control_pb2 as pb


@pytest.fixture
def web(control: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service with a running task, a starting one with a history, on two nodes, at the moment 1000."""
    monkeypatch.setattr(SystemClock, "now", lambda self: 1000.0)
    service = a_service("web", replicas=2, image="r:5000/web:2", ports=(a_port(),), spec_version=2)
    service = replace(service, id="webservice0123456789", version=7)
    old = a_revision(replace(service, spec_version=1))
    old = replace(old, task_template=replace(old.task_template, container_spec=ContainerSpec(image="r:5000/web:1")))
    control.add(
        a_node("n1", hostname="m1"),
        a_node("n2", hostname="w1"),
        service,
        a_revision(service),
        old,
        a_task("task1aaaaaaaaaaaaaaa", service=service, slot=1, node="n1", since=700, created_at=690),
        a_task("task2aaaaaaaaaaaaaaa", service=service, slot=2, node="n2", since=998, created_at=990,
               state=TaskState.STARTING),
        a_task("task0aaaaaaaaaaaaaaa", service=service, slot=2, node="n1", since=940, created_at=930, spec_version=1,
               state=TaskState.FAILED, desired=TaskState.SHUTDOWN, err="task: non-zero exit (1): no such file"),
    )  # fmt: skip
    return control


def test_ls_is_dockers_table(pyswarm: Any, web: Any) -> None:
    assert pyswarm.ok("service", "ls") == (
        "ID             NAME      MODE         REPLICAS   IMAGE          PORTS\n"
        "webservice01   web       replicated   1/2        r:5000/web:2   *:8080->80/tcp\n"
    )


def test_ls_in_json_has_dockers_keys(pyswarm: Any, web: Any) -> None:
    assert json.loads(pyswarm.ok("service", "ls", "--format", "json")) == {
        "ID": "webservice01",
        "Name": "web",
        "Mode": "replicated",
        "Replicas": "1/2",
        "Image": "r:5000/web:2",
        "Ports": "*:8080->80/tcp",
    }


def test_an_empty_list_has_a_head_and_in_json_nothing(pyswarm: Any, control: Any) -> None:
    assert pyswarm.ok("service", "ls") == "ID        NAME      MODE      REPLICAS   IMAGE     PORTS\n"
    assert pyswarm.ok("service", "ls", "--format", "json") == ""
    assert pyswarm.ok("service", "ls", "-q") == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-q"], "webservice01\n"),
        (["-q", "--no-trunc"], "webservice0123456789\n"),
        (["-q", "--filter", "mode=global"], ""),
        (["-q", "--filter", "name=we"], "webservice01\n"),
        (["-q", "--filter", "id=other"], ""),
    ],
)
def test_ls_prints_what_is_asked_for(pyswarm: Any, web: Any, words: list[str], expected: str) -> None:
    assert pyswarm.ok("service", "ls", *words) == expected


def test_ps_shows_each_slot_with_its_history_below(pyswarm: Any, web: Any) -> None:
    expected = """
ID             NAME        IMAGE          NODE      DESIRED STATE   CURRENT STATE               ERROR
task1aaaaaaa   web.1       r:5000/web:2   m1        Running         Running 5 minutes ago
task2aaaaaaa   web.2       r:5000/web:2   w1        Running         Starting 2 seconds ago
task0aaaaaaa    \\_ web.2   r:5000/web:1   m1        Shutdown        Failed About a minute ago   "task…"
"""
    lines = pyswarm.ok("service", "ps", "web").replace("task: non-zero exit (1): no s…", "task…").splitlines()
    assert [line.removesuffix("PORTS").removesuffix("*:8080->80/tcp").rstrip() for line in lines] == (
        expected.strip().splitlines()
    )
    assert lines[0].endswith("PORTS")
    assert lines[1].endswith("*:8080->80/tcp")
    assert lines[0].index("PORTS") == lines[1].index("*:8080")


def test_ps_without_truncation_tells_the_whole_error(pyswarm: Any, web: Any) -> None:
    rows = [
        json.loads(line) for line in pyswarm.ok("service", "ps", "--no-trunc", "--format", "json", "web").splitlines()
    ]
    assert rows[2] == {
        "ID": "task0aaaaaaaaaaaaaaa",
        "Name": " \\_ web.2",
        "Image": "r:5000/web:1",
        "Node": "m1",
        "DesiredState": "Shutdown",
        "CurrentState": "Failed About a minute ago",
        "Error": '"task: non-zero exit (1): no such file"',
        "Ports": "",
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--filter", "desired-state=running"], "task1aaaaaaa\ntask2aaaaaaa\n"),
        (["--filter", "node=w1"], "task2aaaaaaa\n"),
        (["--filter", "name=web.1"], "task1aaaaaaa\n"),
    ],
)
def test_ps_filters(pyswarm: Any, web: Any, words: list[str], expected: str) -> None:
    assert pyswarm.ok("service", "ps", "-q", *words, "web") == expected


def test_ps_of_nothing_fails(pyswarm: Any, control: Any) -> None:
    assert pyswarm.fails("service", "ps", "nope") == (
        "Error: no such service: nope\n`pyswarm service ls` lists what there is.\n"
    )


def test_web_10_comes_after_web_2(pyswarm: Any, control: Any) -> None:
    web = a_service("web", replicas=10)
    control.add(web, a_revision(web), *(a_task(f"t{n}", service=web, slot=n) for n in (10, 2, 1)))
    assert pyswarm.ok("service", "ps", "-q", "web") == "t1\nt2\nt10\n"


def test_inspect_is_dockers_json(pyswarm: Any, web: Any) -> None:
    (found,) = json.loads(pyswarm.ok("service", "inspect", "web"))
    assert found["Version"] == {"Index": 7}
    assert found["Spec"]["Mode"] == {"Replicated": {"Replicas": 2}}
    assert found["Spec"]["TaskTemplate"]["ContainerSpec"] == {"Image": "r:5000/web:2", "StopGracePeriod": 10 * 10**9}
    assert found["Endpoint"]["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}
    ]
    template = "{{.Spec.Name}} {{.Spec.Mode.Replicated.Replicas}} {{json .Spec.UpdateConfig.Order}}"
    assert pyswarm.ok("service", "inspect", "--format", template, "web") == 'web 2 "stop-first"\n'


def test_inspect_for_people(pyswarm: Any, web: Any) -> None:
    assert pyswarm.ok("service", "inspect", "--pretty", "web") == (
        "ID:                 webservice0123456789\n"
        "Name:               web\n"
        "Service Mode:       Replicated\n"
        "Replicas:           2\n"
        "UpdateConfig:\n"
        " Parallelism:       1\n"
        " On failure:        pause\n"
        " Monitoring Period: 5s\n"
        " Max failure ratio: 0\n"
        " Update order:      stop-first\n"
        "RollbackConfig:\n"
        " Parallelism:       1\n"
        " On failure:        pause\n"
        " Monitoring Period: 5s\n"
        " Max failure ratio: 0\n"
        " Update order:      stop-first\n"
        "ContainerSpec:\n"
        " Image:             r:5000/web:2\n"
        "Ports:\n"
        " 8080:80/tcp host\n"
    )


def created(control: Any) -> ServiceSpec:
    return from_message(control.asked(pb.CreateServiceRequest).spec, ServiceSpec)


def test_create_with_every_kind_of_flag(pyswarm: Any, control: Any, tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("# a comment\n\nFROM_FILE=1\nPASSED\nB=file\n")
    out = pyswarm.ok(
        *[
            "service",
            "create",
            "-d",
            "--name",
            "web",
            "-l",
            "a=1",
            "--container-label",
            "b=2",
            "--replicas",
            "3",
            "-e",
            "B=2",
            "--env-file",
        ],
        str(env_file),
        *[
            "-w",
            "/srv",
            "-u",
            "1000",
            "--hostname",
            "h",
            "--read-only",
            "--init",
            "-t",
            "--stop-signal",
            "SIGINT",
            "--stop-grace-period",
            "1m",
        ],
        *["--mount", "type=bind,source=/a,target=/b,readonly", "--mount", "type=tmpfs,dst=/t,tmpfs-size=64m"],
        *[
            "--cap-add",
            "NET_ADMIN",
            "--cap-drop",
            "ALL",
            "--limit-cpu",
            "0.5",
            "--limit-memory",
            "64M",
            "--limit-pids",
            "10",
        ],
        *[
            "--reserve-cpu",
            "0.1",
            "--reserve-memory",
            "8M",
            "--constraint",
            "node.role==worker",
            "--replicas-max-per-node",
            "2",
        ],
        *["--placement-pref", "spread=node.labels.zone", "--restart-condition", "on-failure", "--restart-delay", "1s"],
        *["--restart-max-attempts", "4", "--restart-window", "1m", "--update-parallelism", "2", "--update-delay", "3s"],
        *["--update-failure-action", "rollback", "--update-monitor", "4s", "--update-max-failure-ratio", ".1"],
        *["--update-order", "start-first", "--rollback-parallelism", "0", "-p", "8080:80"],
        *["--publish", "published=53,target=5353,protocol=udp,mode=host", "--entrypoint"],
        "sh -c",
        *["r:5000/web:1", "echo", "-n", "--name", "x"],
        PASSED="yes",
    )
    assert out == "service-web\n"
    spec = created(control)
    template, found = spec.task_template, spec.task_template.container_spec
    assert found == ContainerSpec(
        image="r:5000/web:1",
        command=("sh", "-c"),
        args=("echo", "-n", "--name", "x"),
        env=("FROM_FILE=1", "PASSED=yes", "B=2"),
        dir="/srv",
        user="1000",
        hostname="h",
        labels={"b": "2"},
        mounts=(Mount(MountType.BIND, "/a", "/b", True), Mount(MountType.TMPFS, "", "/t", False, 64 << 20)),
        stop_signal="SIGINT",
        stop_grace_period_seconds=60,
        capability_add=("NET_ADMIN",),
        capability_drop=("ALL",),
        read_only=True,
        init=True,
        tty=True,
    )
    assert (spec.name, spec.labels, spec.mode.replicated and spec.mode.replicated.replicas) == ("web", {"a": "1"}, 3)
    assert template.resources.limits.nano_cpus == 500_000_000
    assert template.resources.reservations.memory_bytes == 8 << 20
    assert template.placement.constraints == ("node.role==worker",)
    assert (template.placement.preferences, template.placement.max_replicas) == (("node.labels.zone",), 2)
    assert (template.restart_policy.max_attempts, template.restart_policy.window_seconds) == (4, 60)
    assert spec.update_config.failure_action is FailureAction.ROLLBACK
    assert spec.rollback_config == UpdateConfig(0)
    assert spec.endpoint_spec.ports == (
        PortConfig(target_port=80, published_port=8080),
        PortConfig("", "udp", 5353, 53, PublishMode.HOST),
    )


def test_create_without_a_name_makes_one_up_from_the_image(pyswarm: Any, control: Any) -> None:
    pyswarm.ok("service", "create", "-d", "r:5000/some/web:1")
    assert created(control).name.startswith("web-")


def test_a_global_service(pyswarm: Any, control: Any) -> None:
    pyswarm.ok("service", "create", "-d", "--mode", "global", "web:1")
    assert created(control).mode.global_mode is not None


def test_a_job_is_listed_with_what_it_completed(pyswarm: Any, control: Any) -> None:
    words = ["create", "-d", "--name", "sums", "--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2"]
    pyswarm.ok("service", *words, "r:5000/sums:1")
    (service,) = control.services.values()
    assert service.spec.mode == ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2, total_completions=5))
    control.completed[service.id] = 3
    listed = pyswarm.ok("service", "ls", "--format", "{{.Mode}} {{.Replicas}}")
    assert listed == "replicated job 0/2 (3/5 completed)\n"
    assert "Total Completions" in pyswarm.ok("service", "inspect", "--pretty", "sums")
    (inspected,) = json.loads(pyswarm.ok("service", "inspect", "sums"))
    assert inspected["Spec"]["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}
    assert "UpdateConfig" not in inspected["Spec"]


def test_a_job_runs_all_its_tasks_at_once_unless_told_otherwise(pyswarm: Any, control: Any) -> None:
    pyswarm.ok("service", "create", "-d", "--mode", "replicated-job", "--replicas", "5", "r:5000/sums:1")
    (service,) = control.services.values()
    assert service.spec.mode.replicated_job == ReplicatedJob(5, 5)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["create", "A B"], 1, "white space"),
        (["create", "--name", "a b", "web"], 1, "DNS name"),
        (["create", "--mode", "global", "--replicas", "2", "web"], 1, "replicas can only be used with replicated or"),
        (["create", "--max-concurrent", "2", "web"], 1, "max-concurrent can only be used with replicated-job mode"),
        (["create", "--mount", "type=volume,target=/a", "web"], 1, 'mount type "volume" is not supported yet'),
        (["create", "--mount", "typ=bind", "web"], 1, '"typ=bind" is unknown'),
        (["create", "-p", "1.2.3.4:80:80", "web"], 1, 'port "1.2.3.4:80:80" names an address'),
        (["create", "-p", "published=80", "web"], 1, "has no target"),
        (["create", "-p", "target=80,mode=x", "web"], 1, 'port mode "x" is unknown'),
        (["create", "-l", "=x", "web"], 1, '"=x" is not a label'),
        (["create", "-e", "=x", "web"], 1, '"=x" is not a variable'),
        (["create", "--constraint", "nope", "web"], 1, "nope"),
        (["create", "--placement-pref", "binpack=x", "web"], 1, 'placement preference "binpack=x" is unknown'),
        (["create", "--limit-memory", "1k", "web"], 1, "the memory limit is 1024 bytes"),
        (["create", "--entrypoint", "sh -c '", "web"], 1, "no closing quotation"),
        (["create", "--limit-memory", "lots", "web"], 125, '"lots" is not a size'),
        (["create", "--limit-cpu", "x", "web"], 125, '"x" is not a number of CPUs'),
        (["create", "--restart-delay", "5", "web"], 125, '"5" is not a length of time'),
        (["create", "--replicas", "-1", "web"], 125, "is not a whole number of at least 0"),
        (["create", "--update-order", "both", "web"], 125, '"both" is none of: stop-first, start-first'),
        (["create", "--network", "x", "web"], 125, "--network"),
        (["create", "--env-file", "/nowhere/env", "web"], 1, "/nowhere/env: No such file or directory"),
        (["create"], 1, "Missing argument 'IMAGE'"),
        (["update", "--rollback", "--image", "x", "web"], 1, "--rollback cannot be combined with --image"),
        (["scale", "web"], 1, 'invalid scale specifier "web"'),
        (["scale", "web=many"], 1, 'invalid replicas value "many" of web'),
        (["scale", "web=-1"], 1, 'invalid replicas value "-1" of web'),
        (["logs", "--tail", "x", "web"], 1, 'invalid number of lines "x"'),
        (["logs", "--since", "yesterday", "web"], 1, '"yesterday" is neither a moment nor a length of time'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    pyswarm: Any, control: Any, words: list[str], status: int, message: str
) -> None:
    said = pyswarm.run("service", *words)
    assert said.status == status, said
    assert said.err.startswith("Error: ")
    assert message in said.err
    assert said.out == ""
    assert control.requests == []


def test_a_name_that_is_taken(pyswarm: Any, web: Any) -> None:
    assert pyswarm.fails("service", "create", "-d", "--name", "web", "web:1") == (
        "Error: a service named web exists\nChoose another name.\n"
    )


def updated(pyswarm: Any, control: Any, *words: str, **environment: str) -> ServiceSpec:
    assert pyswarm.ok("service", "update", "-d", *words, "web", **environment) == "web\n"
    return from_message(control.asked(pb.UpdateServiceRequest).spec, ServiceSpec)


def test_update_changes_only_what_is_named(pyswarm: Any, web: Any) -> None:
    before = next(iter(web.services.values())).spec
    after = updated(pyswarm, web, "--image", "r:5000/web:3")
    container = replace(before.task_template.container_spec, image="r:5000/web:3")
    assert after == replace(before, task_template=replace(before.task_template, container_spec=container))
    assert web.asked(pb.UpdateServiceRequest).version == 7


def test_update_adds_replaces_and_removes(pyswarm: Any, control: Any) -> None:
    spec_of = ContainerSpec(
        env=("A=1", "B=1"),
        labels={"x": "1", "y": "1"},
        mounts=(Mount(MountType.BIND, "/a", "/m"), Mount(MountType.BIND, "/b", "/n")),
        capability_add=("NET_ADMIN",),
    )
    web = a_service("web", container=spec_of, labels={"l": "1"}, ports=(a_port(), a_port(8443, 443)))
    web = replace(web, spec=replace(web.spec, task_template=replace(web.spec.task_template, force_update=1)))
    control.add(web)
    after = updated(
        pyswarm,
        control,
        *[
            "--env-add",
            "B=2",
            "--env-add",
            "C",
            "--env-rm",
            "A",
            "--container-label-add",
            "z=1",
            "--container-label-rm",
            "x",
        ],
        *[
            "--label-add",
            "l=2",
            "--mount-add",
            "type=bind,source=/c,target=/m",
            "--mount-rm",
            "/n",
            "--cap-drop",
            "NET_ADMIN",
        ],
        *["--publish-rm", "443", "--publish-add", "8080:81", "--constraint-add", "node.role==worker", "--force"],
        *["--placement-pref-add", "spread=node.labels.zone", "--no-read-only", "--replicas", "4", "--args"],
        "echo 'a b'",
        C="from outside",
    )
    found = after.task_template.container_spec
    assert found.env == ("B=2", "C=from outside")
    assert (found.labels, after.labels) == ({"y": "1", "z": "1"}, {"l": "2"})
    assert found.mounts == (Mount(MountType.BIND, "/c", "/m"),)
    assert (found.capability_add, found.capability_drop) == ((), ("NET_ADMIN",))
    assert [(p.published_port, p.target_port) for p in after.endpoint_spec.ports] == [(8080, 81)]
    assert after.task_template.placement.constraints == ("node.role==worker",)
    assert after.task_template.placement.preferences == ("node.labels.zone",)
    assert after.task_template.force_update == 2
    assert after.mode.replicated is not None
    assert after.mode.replicated.replicas == 4
    assert found.args == ("echo", "a b")


def test_scale_takes_several_services(pyswarm: Any, control: Any) -> None:
    control.add(a_service("web"), a_service("api"))
    assert pyswarm.ok("service", "scale", "-d", "web=3", "api=0") == "web scaled to 3\napi scaled to 0\n"
    counts = {s.spec.name: s.spec.mode.replicated.replicas for s in control.services.values()}
    assert counts == {"web": 3, "api": 0}


def test_a_global_service_cannot_be_scaled(pyswarm: Any, control: Any) -> None:
    control.add(a_service("agent", is_global=True))
    assert "scale can only be used with replicated mode" in pyswarm.fails("service", "scale", "agent=3")


def test_rollback_needs_something_to_go_back_to(pyswarm: Any, web: Any) -> None:
    assert "service web has no previous specification" in pyswarm.fails("service", "rollback", "web")
    updated(pyswarm, web, "--image", "r:5000/web:3")
    assert pyswarm.ok("service", "update", "-d", "--rollback", "web") == "web\n"
    assert web.asked(pb.UpdateServiceRequest).rollback


def test_rm_goes_on_after_a_refusal_and_fails_in_the_end(pyswarm: Any, web: Any) -> None:
    said = pyswarm.run("service", "rm", "nope", "web")
    assert (said.status, said.out) == (1, "web\n")
    assert "no such service: nope" in said.err
    assert web.services == {}


def test_logs_name_the_task_and_node_of_each_line(pyswarm: Any, web: Any) -> None:
    from pyswarm.proto.v1 import logs_pb2

    web.logs = [
        logs_pb2.LogMessage(task_id="task1aaaaaaaaaaaaaaa", timestamp=1.5, stream="stdout", data=b"hello \xff"),
        logs_pb2.LogMessage(task_id="task2aaaaaaaaaaaaaaa", timestamp=2, stream="stderr", data=b"oh"),
        logs_pb2.LogMessage(note="node w9 is not connected: its logs are missing"),
    ]
    said = pyswarm.run("service", "logs", "--tail", "10", "web")
    assert said.out == "web.1.task1aaaaaaa@m1    | hello \ufffd\n"
    assert said.err.startswith("web.2.task2aaaaaaa@w1    | oh\nnode w9 is not connected: its logs are missing\n")
    assert (said.status, "the logs are incomplete" in said.err) == (1, True)
    assert web.requests[-1].options.tail == 10
    del web.logs[-1]
    assert pyswarm.ok("service", "logs", "-t", "--raw", "web").startswith("1970-01-01T00:00:01.500000Z hello")
    assert pyswarm.ok("service", "logs", "task1").startswith("web.1.task1aaaaaaa@m1")
    assert list(web.requests[-1].task_ids) == ["task1aaaaaaaaaaaaaaa"]


def test_a_task_killed_for_memory_says_so(pyswarm: Any, web: Any) -> None:
    task = web.tasks["task0aaaaaaaaaaaaaaa"]
    status = replace(task.status, err="", container_status=ContainerStatus(exit_code=137, oom_killed=True))
    web.add(replace(task, status=status))
    assert pyswarm.ok("service", "ps", "--filter", "desired-state=shutdown", "--format", "{{.Error}}", "web") == (
        '"task: non-zero exit (137): ou…"\n'
    )
