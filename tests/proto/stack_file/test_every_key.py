"""Every key of Compose 3.13 that a stack file may have: carried out, ignored with a warning, or refused, each by name.

The table is written from Compose's schema and Docker's loader, not from ours: a key that ours forgets is found.
"""

import pytest

from pyswarm.proto.codec.stack_file import StackFile, parse_stack
from pyswarm.proto.codec.stack_file.vocabulary import DEPLOY, SERVICE, TOP
from pyswarm.proto.errors import InvalidStackFile
from pyswarm.proto.model.spec import ServiceSpec

CARRIED_OUT = {
    "cap_add": "[NET_ADMIN]",
    "cap_drop": "[CHOWN]",
    "command": "sleep 1",
    "configs": "[{source: site, target: /etc/site}]",
    "deploy": "{replicas: 3}",
    "dns": "10.0.0.1",
    "dns_search": "[lab]",
    "entrypoint": "[/bin/sh]",
    "env_file": "one.env",
    "environment": "{A: 1}",
    "extra_hosts": "['db:10.0.0.2']",
    "healthcheck": "{test: [CMD, 'true']}",
    "hostname": "box",
    "image": "other:1",
    "init": "true",
    "labels": "{a: b}",
    "logging": "{driver: json-file, options: {max-size: 1m}}",
    "oom_score_adj": "100",
    "ports": "['8080:80']",
    "read_only": "true",
    "secrets": "[key]",
    "stdin_open": "true",
    "stop_grace_period": "3s",
    "stop_signal": "SIGINT",
    "sysctls": "{net.core.somaxconn: 1024}",
    "tty": "true",
    "ulimits": "{nofile: 1024}",
    "user": "7",
    "volumes": "['/a:/b']",
    "working_dir": "/srv",
}
IGNORED = (
    *("build", "cgroupns_mode", "cgroup_parent", "container_name", "depends_on", "devices", "domainname", "expose"),
    *("external_links", "ipc", "links", "mac_address", "network_mode", "pid", "privileged", "restart", "security_opt"),
    *("shm_size", "userns_mode"),
)
REFUSED = (
    *("cpu_quota", "cpu_shares", "cpuset", "credential_spec", "extends", "isolation", "mem_limit", "memswap_limit"),
    *("networks", "tmpfs", "volume_driver", "volumes_from"),
)
DEPLOY_CARRIED_OUT = {
    "labels": "{a: b}",
    "mode": "global",
    "placement": "{constraints: [node.role==worker], preferences: [{spread: node.labels.z}], max_replicas_per_node: 2}",
    "replicas": "3",
    "resources": "{limits: {cpus: '1', memory: 64M, pids: 9}, reservations: {cpus: '1', memory: 8M}}",
    "restart_policy": "{condition: on-failure, delay: 1s, max_attempts: 2, window: 9s}",
    "rollback_config": "{parallelism: 2, delay: 1s, failure_action: continue, monitor: 1s, max_failure_ratio: 0.5}",
    "update_config": "{parallelism: 2, delay: 1s, failure_action: rollback, monitor: 1s, order: start-first}",
}
OURS = {
    *("readiness", "pre_stop", "drain_delay"),  # ours, in a service
    *("cpus", "dns_opt", "mem_reservation", "mem_swappiness", "pids_limit", "platform", "profiles", "pull_policy"),
    *("runtime", "scale"),  # of the Compose specification, after version 3
}


def parsed(service: str) -> StackFile:
    text = (
        f"services: {{web: {service}}}\nsecrets: {{key: {{external: true}}}}\nconfigs: {{site: {{external: true}}}}\n"
    )
    return parse_stack([("f", text)], stack="s", environment={}, read_text=lambda _: "FROM=file")


def spec(service: str) -> ServiceSpec:
    (found,) = parsed(service).services
    return found


@pytest.mark.parametrize("key", CARRIED_OUT)
def test_what_is_carried_out_changes_the_service_and_warns_of_nothing(key: str) -> None:
    image = "" if key == "image" else "image: web:1, "
    found = parsed(f"{{{image}{key}: {CARRIED_OUT[key]}}}")
    assert found.services != (spec("{image: web:1}"),)
    assert found.warnings == ()


@pytest.mark.parametrize("key", DEPLOY_CARRIED_OUT)
def test_what_is_carried_out_of_deploy_changes_the_service(key: str) -> None:
    assert spec(f"{{image: web:1, deploy: {{{key}: {DEPLOY_CARRIED_OUT[key]}}}}}") != spec("{image: web:1}")


@pytest.mark.parametrize("key", IGNORED)
def test_what_docker_ignores_is_ignored_and_named(key: str) -> None:
    found = parsed(f"{{image: web:1, {key}: x}}")
    assert found.services == (spec("{image: web:1}"),)
    (warning,) = found.warnings
    assert f"services.web.{key} is ignored: " in warning


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_available_is_refused_and_named(key: str) -> None:
    with pytest.raises(InvalidStackFile) as raised:
        parsed(f"{{image: web:1, {key}: x}}")
    assert f"services.web.{key} is not supported" in raised.value.message
    assert raised.value.remedy


def test_the_table_and_the_vocabulary_have_the_same_keys() -> None:
    assert {*CARRIED_OUT, *IGNORED, *REFUSED} == SERVICE.all_keys - OURS
    compose_only = DEPLOY.all_keys - {"schedule", "move_config"}
    assert {*DEPLOY_CARRIED_OUT, "endpoint_mode"} == compose_only
    assert {"version", "services", "networks", "volumes", "secrets", "configs"} <= TOP.all_keys
