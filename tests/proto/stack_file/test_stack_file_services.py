"""A stack file becomes the services it describes, with Swarm's defaults for what it does not say."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pyswarm.proto.codec.stack_file import StackFile, parse_stack
from pyswarm.proto.model.objects import STACK_LABEL
from pyswarm.proto.model.spec import (
    ContainerSpec,
    FileTarget,
    GlobalJob,
    GlobalMode,
    Mount,
    PortConfig,
    ReplicatedJob,
    ReplicatedMode,
    RestartPolicy,
    SecretReference,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)
from pyswarm.proto.model.states import FailureAction, MountType, PublishMode, RestartCondition, UpdateOrder

EXAMPLE = Path(__file__).resolve().parents[3] / "deploy" / "examples" / "web.yaml"


def parse(*texts: str, environment: Mapping[str, str] | None = None) -> StackFile:
    files = [(f"{chr(97 + i)}.yaml", text) for i, text in enumerate(texts)]
    return parse_stack(files, stack="s", environment=environment or {})


def service(body: str, **environment: str) -> ServiceSpec:
    """Return the spec of a service whose body is given without its image."""
    text = "services:\n  web:\n    image: web:1\n" + "".join(f"    {line}\n" for line in body.splitlines())
    (spec,) = parse(text, environment=environment).services
    return spec


def container(body: str, **environment: str) -> ContainerSpec:
    return service(body, **environment).task_template.container_spec


def test_the_least_service_has_swarms_defaults() -> None:
    spec = service("")
    assert spec.name == "s_web"
    assert spec.labels == {STACK_LABEL: "s"}
    assert spec.task_template.container_spec == ContainerSpec(image="web:1", labels={STACK_LABEL: "s"})
    assert spec.mode.replicated == ReplicatedMode(1)
    assert spec.task_template.restart_policy == RestartPolicy()
    assert spec.update_config == UpdateConfig()


def test_the_example_is_six_replicas_on_port_8080() -> None:
    parsed = parse_stack([("web.yaml", EXAMPLE.read_text())], stack="web", environment={"REGISTRY": "r:5000"})
    (spec,) = parsed.services
    assert parsed.warnings == ()
    assert spec.task_template.container_spec.image == "r:5000/web:1"
    assert spec.mode.replicated == ReplicatedMode(6)
    assert spec.endpoint_spec.ports == (PortConfig(target_port=80, published_port=8080),)
    assert spec.update_config.parallelism == 2


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("command: echo 'a b' c", ("echo", "a b", "c")),
        ("command: [echo, a b]", ("echo", "a b")),
        ("command: ['1', 2]", ("1", "2")),
    ],
)
def test_a_command_is_a_line_or_a_list(body: str, expected: tuple[str, ...]) -> None:
    assert container(body).args == expected


def test_an_entrypoint_replaces_the_images() -> None:
    assert container("entrypoint: sh -c").command == ("sh", "-c")


@pytest.mark.parametrize(
    "body",
    [
        'environment:\n  A: 1\n  B: "true"\n  C:\n  D: x=y\n  E: ""',
        "environment:\n- A=1\n- B=true\n- C\n- D=x=y\n- E=",
    ],
    ids=["mapping", "list"],
)
def test_environment_may_be_a_mapping_or_a_list(body: str) -> None:
    assert container(body, C="from outside").env == ("A=1", "B=true", "C=from outside", "D=x=y", "E=")


def test_files_of_variables_come_before_the_environment_and_later_ones_after_earlier_ones() -> None:
    files = {"a.env": "# both\nA=1\nB=1\nC=1\nP\n", "./b.env": "B=2\nC=2\n"}
    text = "services: {web: {image: a, env_file: [a.env, ./b.env], environment: {C: 3}}}"
    for environment, passed in (({"P": "outside"}, ("P=outside",)), ({}, ())):
        found = parse_stack([("f", text)], stack="s", environment=environment, read_text=files.__getitem__)
        env = found.services[0].task_template.container_spec.env
        assert set(env) == {"A=1", "B=2", "C=3", *passed}
    assert found.warnings == ("f:1:39: variable P is not set: leaving it out",)


def test_one_file_of_variables_may_be_named_alone() -> None:
    text = "services: {web: {image: a, env_file: one.env}}"
    found = parse_stack([("f", text)], stack="s", environment={}, read_text=lambda file: f"FILE={file}")
    assert found.services[0].task_template.container_spec.env == ("FILE=one.env",)


def test_a_number_keeps_the_form_it_was_written_in() -> None:
    assert container("environment:\n  V: 1.10\n  O: 0755\nuser: 1000").env == ("V=1.10", "O=0755")


def test_a_passed_on_variable_that_is_not_set_is_left_out_with_a_warning() -> None:
    parsed = parse("services:\n  web:\n    image: a\n    environment: [GONE]\n")
    assert parsed.services[0].task_template.container_spec.env == ()
    assert parsed.warnings == ("a.yaml:4:19: variable GONE is not set: leaving it out",)


def test_labels_go_to_containers_and_deploy_labels_to_the_service() -> None:
    spec = service("labels:\n  a: 1\n  b:\ndeploy:\n  labels: [c=2, d]")
    assert spec.task_template.container_spec.labels == {"a": "1", "b": "", STACK_LABEL: "s"}
    assert spec.labels == {"c": "2", "d": "", STACK_LABEL: "s"}


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ('"80"', [(0, 80, "tcp")]),
        ("8080:80", [(8080, 80, "tcp")]),
        ('"22:22"', [(22, 22, "tcp")]),
        ("53:5353/udp", [(53, 5353, "udp")]),
        ("9000-9002:90-92", [(9000, 90, "tcp"), (9001, 91, "tcp"), (9002, 92, "tcp")]),
        ("9000-9001:90", [(9000, 90, "tcp"), (9001, 90, "tcp")]),
        ("90-91", [(0, 90, "tcp"), (0, 91, "tcp")]),
    ],
)
def test_a_port_in_its_short_spelling(port: str, expected: list[tuple[int, int, str]]) -> None:
    ports = service(f"ports: [{port}]").endpoint_spec.ports
    assert [(p.published_port, p.target_port, p.protocol) for p in ports] == expected
    assert {p.publish_mode for p in ports} == {PublishMode.INGRESS}


def test_a_port_in_its_long_spelling() -> None:
    body = "ports:\n- {target: 80, published: 8080, protocol: udp, mode: host, name: web}\n- target: 81"
    assert service(body).endpoint_spec.ports == (
        PortConfig("web", "udp", 80, 8080, PublishMode.HOST),
        PortConfig(target_port=81),
    )


def test_volumes_are_directories_of_the_node_or_memory() -> None:
    body = (
        "volumes:\n- /etc/site:/site:ro\n- {type: bind, source: /a, target: /b}\n"
        "- {type: tmpfs, target: /t, tmpfs: {size: 64m}}"
    )
    assert container(body).mounts == (
        Mount(MountType.BIND, "/etc/site", "/site", True),
        Mount(MountType.BIND, "/a", "/b"),
        Mount(MountType.TMPFS, "", "/t", False, 64 << 20),
    )


def test_the_rest_of_a_container() -> None:
    body = (
        "user: 1000:1000\nworking_dir: /srv\nhostname: web\nstop_signal: SIGINT\nstop_grace_period: 1m30s\n"
        "cap_add: [NET_ADMIN]\ncap_drop: [ALL]\nread_only: true\ninit: yes\ntty: 'true'"
    )
    found = container(body)
    assert (found.user, found.dir, found.hostname, found.stop_signal) == ("1000:1000", "/srv", "web", "SIGINT")
    assert found.stop_grace_period_seconds == 90
    assert (found.capability_add, found.capability_drop) == (("NET_ADMIN",), ("ALL",))
    assert (found.read_only, found.init, found.tty) == (True, True, True)


def test_deploy_in_full() -> None:
    spec = service(
        """deploy:
  replicas: 3
  resources:
    limits: {cpus: '0.5', memory: 50M, pids: 100}
    reservations: {cpus: 0.25, memory: 20M}
  restart_policy: {condition: on-failure, delay: 2s, max_attempts: 3, window: 1m}
  placement:
    constraints: [node.role==worker]
    preferences: [{spread: node.labels.zone}]
    max_replicas_per_node: 2
  update_config:
    {parallelism: 2, delay: 10s, failure_action: rollback, monitor: 1s, max_failure_ratio: 0.2, order: start-first}
  rollback_config: {parallelism: 0, failure_action: continue}"""
    )
    template = spec.task_template
    assert spec.mode.replicated == ReplicatedMode(3)
    limits, reservations = template.resources.limits, template.resources.reservations
    assert (limits.nano_cpus, limits.memory_bytes, limits.pids) == (500_000_000, 50 << 20, 100)
    assert (reservations.nano_cpus, reservations.memory_bytes) == (250_000_000, 20 << 20)
    assert template.restart_policy == RestartPolicy(RestartCondition.ON_FAILURE, 2, 3, 60)
    assert template.placement.constraints == ("node.role==worker",)
    assert template.placement.preferences == ("node.labels.zone",)
    assert template.placement.max_replicas == 2
    assert spec.update_config == UpdateConfig(2, 10, FailureAction.ROLLBACK, 1, 0.2, UpdateOrder.START_FIRST)
    assert spec.rollback_config == UpdateConfig(0, failure_action=FailureAction.CONTINUE)


def test_jobs_are_modes_of_a_service() -> None:
    mode = service("deploy: {mode: replicated-job, replicas: 3}").mode
    assert mode == ServiceMode(replicated_job=ReplicatedJob(max_concurrent=3, total_completions=3))
    assert service("deploy: {mode: global-job}").mode == ServiceMode(global_job=GlobalJob())


def test_secrets_and_configs_are_named_after_the_stack_and_called_as_in_the_file() -> None:
    parsed = parse(
        """
services:
  web:
    image: web:1
    secrets: [key, {source: cert, target: /etc/tls/cert.pem, uid: "5", gid: "6", mode: 0400}]
    configs: [site, shared]
secrets:
  key: {file: ./key.txt}
  cert: {environment: CERT}
configs:
  site: {content: hello, labels: {a: b}}
  shared: {external: true, name: shared-v2}
""",
        environment={"CERT": "pem"},
    )
    container = parsed.services[0].task_template.container_spec
    assert container.secrets == (
        SecretReference(secret_name="s_key", file=FileTarget(name="key")),
        SecretReference(secret_name="s_cert", file=FileTarget("/etc/tls/cert.pem", "5", "6", 0o400)),
    )
    assert [(c.config_name, c.path) for c in container.configs] == [("s_site", "/site"), ("shared-v2", "/shared")]
    assert [(s.name, s.file, s.content) for s in parsed.secrets] == [
        ("s_key", "./key.txt", None),
        ("s_cert", "", b"pem"),
    ]
    (site,) = parsed.configs
    assert (site.name, site.content, site.labels) == ("s_site", b"hello", {"a": "b", STACK_LABEL: "s"})


def test_a_secret_may_be_replaced_in_place() -> None:
    use = "{source: key, propagation: in-place, signal: SIGHUP}"
    (spec,) = parse(f"services: {{a: {{image: b, secrets: [{use}]}}}}\nsecrets: {{key: {{external: true}}}}").services
    container = spec.task_template.container_spec
    assert container.secrets[0].file == FileTarget("key", in_place=True, signal="SIGHUP")


def test_a_global_service_has_no_replicas() -> None:
    assert service("deploy: {mode: global}").mode.global_mode == GlobalMode()


@pytest.mark.parametrize(
    ("written", "environment", "expected"),
    [
        ("$A-$$", {"A": "x"}, "x-$"),
        ("${A}b", {"A": "x"}, "xb"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A-d}", {"A": ""}, ""),
        ("${A-d}", {}, "d"),
        ("${A:-${B:-c}}", {}, "c"),
        ("${A:?no}", {"A": "x"}, "x"),
        ("${A?no}", {"A": ""}, ""),
    ],
)
def test_variables_are_replaced(written: str, environment: dict[str, str], expected: str) -> None:
    assert container(f"environment:\n  V: '{written}'", **environment).env == (f"V={expected}",)


def test_a_variable_may_be_a_number_or_a_flag() -> None:
    spec = service("read_only: ${RO}\ndeploy:\n  replicas: ${N:-4}", RO="true")
    assert spec.mode.replicated == ReplicatedMode(4)
    assert spec.task_template.container_spec.read_only


def test_a_variable_that_is_not_set_is_empty_with_a_warning() -> None:
    parsed = parse("services:\n  web:\n    image: a\n    hostname: $NOPE\n")
    assert parsed.warnings == ("a.yaml:4:15: variable NOPE is not set: using an empty text",)


def test_extension_fields_and_anchors_are_what_they_are_for() -> None:
    text = """
x-anything: &base
  image: web:1
  environment: {A: "${NOT_LOOKED_AT_HERE-}"}
services:
  one: *base
  two:
    <<: *base
    image: web:2
    x-note: {any: [thing]}
"""
    one, two = parse(text).services
    assert (one.name, two.name) == ("s_one", "s_two")
    assert two.task_template.container_spec.image == "web:2"
    assert two.task_template.container_spec.env == ("A=",)


def test_a_later_file_changes_what_it_names() -> None:
    base = """
services:
  web:
    image: web:1
    command: [a, b]
    environment: {A: 1, B: 1}
    ports: ["8080:80", "8443:443"]
    volumes: ["/a:/data", "/c:/c"]
    cap_add: [NET_ADMIN]
    deploy: {replicas: 2, labels: {x: 1}}
"""
    later = """
services:
  web:
    command: c
    environment: [B=2, C=2]
    ports: ["8080:81"]
    volumes: ["/b:/data"]
    cap_add: [SYS_TIME, NET_ADMIN]
    deploy: {replicas: 5}
  more:
    image: more
"""
    web, more = parse(base, later).services
    found = web.task_template.container_spec
    assert (found.image, found.args, found.env) == ("web:1", ("c",), ("A=1", "B=2", "C=2"))
    assert [(p.published_port, p.target_port) for p in web.endpoint_spec.ports] == [(8443, 443), (8080, 81)]
    assert [(m.source, m.target) for m in found.mounts] == [("/c", "/c"), ("/b", "/data")]
    assert found.capability_add == ("SYS_TIME", "NET_ADMIN")
    assert web.mode.replicated == ReplicatedMode(5)
    assert web.labels["x"] == "1"
    assert more.name == "s_more"


def test_what_docker_ignores_is_ignored_with_a_warning_that_names_it() -> None:
    text = "version: '3.8'\nname: x\nservices:\n  web:\n    image: a\n    build: .\n    restart: always\n"
    assert parse(text).warnings == (
        "a.yaml:2:1: name is ignored: the stack's name is the one on the command line",
        "a.yaml:6:5: services.web.build is ignored: images are pulled from a registry: build and push it first",
        "a.yaml:7:5: services.web.restart is ignored: use deploy.restart_policy",
    )


def test_an_empty_section_of_something_unsupported_is_harmless() -> None:
    assert len(parse("services: {web: {image: a, networks: []}}\nvolumes:\nnetworks: {}\n").services) == 1
