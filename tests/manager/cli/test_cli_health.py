"""The flags about health, readiness and the end of a task."""

from typing import Any

import pytest
from lib.builders import a_service
from msgspec.structs import replace

from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.model.spec import ContainerSpec, HealthConfig, ServiceSpec
from pyswarm.proto.v1 import control_pb2 as pb


def created(pyswarm: Any, control: Any, *flags: str) -> ContainerSpec:
    pyswarm.ok("service", "create", "-d", "--name", "web", *flags, "web:1")
    return from_message(control.asked(pb.CreateServiceRequest).spec, ServiceSpec).task_template.container_spec


def updated(pyswarm: Any, control: Any, check: HealthConfig, *flags: str) -> ContainerSpec:
    service = a_service("web")
    template = service.spec.task_template
    container = replace(template.container_spec, healthcheck=check, readiness=HealthConfig(test=("TCP", "80")))
    spec = replace(service.spec, task_template=replace(template, container_spec=container))
    control.add(replace(service, spec=spec))
    pyswarm.ok("service", "update", "-d", *flags, "web")
    return from_message(control.asked(pb.UpdateServiceRequest).spec, ServiceSpec).task_template.container_spec


def test_a_health_check_has_dockers_flags(pyswarm: Any, control: Any):
    container = created(
        pyswarm,
        control,
        *("--health-cmd", "curl -f localhost", "--health-interval", "5s", "--health-timeout", "1500ms"),
        *("--health-retries", "7", "--health-start-period", "1m", "--health-start-interval", "2s"),
    )
    assert container.healthcheck == HealthConfig(("CMD-SHELL", "curl -f localhost"), 5.0, 1.5, 7, 60.0, 2.0)


@pytest.mark.parametrize(
    ("flags", "test"),
    [
        (("--health-http", "8080/healthz"), ("HTTP", "8080/healthz")),
        (("--health-tcp", "5432"), ("TCP", "5432")),
        (("--no-healthcheck",), ("NONE",)),
    ],
)
def test_a_health_check_may_be_another_probe_or_none(pyswarm: Any, control: Any, flags: tuple[str, ...], test: Any):
    assert created(pyswarm, control, *flags).healthcheck.test == test


def test_readiness_hook_and_delay_are_given(pyswarm: Any, control: Any):
    container = created(
        pyswarm,
        control,
        *("--ready-http", "80/ready", "--ready-interval", "1s"),
        *("--pre-stop-cmd", "nginx -s quit", "--drain-delay", "3s"),
    )
    assert container.readiness == HealthConfig(("HTTP", "80/ready"), interval_seconds=1.0)
    assert (container.pre_stop, container.drain_delay_seconds) == (("nginx", "-s", "quit"), 3.0)


def test_an_update_changes_what_it_names_and_takes_out_what_it_empties(pyswarm: Any, control: Any):
    check = HealthConfig(("CMD-SHELL", "old"), 5.0, 1.0, 7)
    container = updated(pyswarm, control, check, "--health-cmd", "new", "--ready-tcp", "")
    assert container.healthcheck == HealthConfig(("CMD-SHELL", "new"), 5.0, 1.0, 7)
    assert container.readiness == HealthConfig()
    assert updated(pyswarm, control, check, "--no-healthcheck").healthcheck == HealthConfig(("NONE",))
    assert updated(pyswarm, control, HealthConfig(("NONE",)), "--health-retries", "2").healthcheck.retries == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--health-cmd", "a", "--health-tcp", "80"), "exclude each other"),
        (("--no-healthcheck", "--health-cmd", "a"), "--no-healthcheck conflicts with --health-* options"),
        (("--health-tcp", "http"), "the health check probes 'http'"),
        (("--ready-http", "99999/x"), "the readiness check probes '99999/x'"),
        (("--ready-interval", "1s"), "the readiness check has no test"),
        (("--health-interval", "1us"), "the health check's interval is 1e-06 s"),
        (("--pre-stop-cmd", "'open"), "no closing quotation"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_asked_for(
    pyswarm: Any, control: Any, flags: tuple[str, ...], said: str
):
    assert said in pyswarm.fails("service", "create", "-d", "--name", "web", *flags, "web:1")
