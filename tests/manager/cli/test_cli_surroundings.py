"""The flags about what a container sees around it, and those of Docker's that we do not carry out."""

from typing import Any

import pytest

from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.model.spec import ContainerSpec, ServiceSpec, Ulimit
from pyswarm.proto.v1 import control_pb2 as pb

CREATE = ("service", "create", "-d", "--name", "web")


def container(control: Any, request: Any) -> ContainerSpec:
    return from_message(control.asked(request).spec, ServiceSpec).task_template.container_spec


def test_they_are_given_and_changed(pyswarm: Any, control: Any):
    pyswarm.ok(
        *CREATE,
        *("--dns", "10.0.0.53", "--dns-search", "example.org", "--dns-option", "ndots:2"),
        *("--host", "db:10.0.0.5", "--host", "db:10.0.0.6", "--host", "v6:2001:db8::1"),
        *("--sysctl", "net.core.somaxconn=1024", "--ulimit", "nofile=1024:2048", "--ulimit", "memlock=-1", "web:1"),
    )
    made = container(control, pb.CreateServiceRequest)
    assert (made.dns_servers, made.dns_search, made.dns_options) == (("10.0.0.53",), ("example.org",), ("ndots:2",))
    assert made.extra_hosts == ("db:10.0.0.5", "db:10.0.0.6", "v6:2001:db8::1")
    assert made.sysctls == {"net.core.somaxconn": "1024"}
    assert made.ulimits == (Ulimit("nofile", 1024, 2048), Ulimit("memlock", -1, -1))
    pyswarm.ok(
        *("service", "update", "-d", "--dns-add", "10.0.0.54", "--dns-rm", "10.0.0.53", "--dns-search-rm"),
        *("example.org", "--host-rm", "db:10.0.0.5", "--host-add", "cache:10.0.0.7", "--sysctl-rm"),
        *("net.core.somaxconn", "--sysctl-add", "net.ipv4.tcp_syncookies=0"),
        *("--ulimit-add", "nofile=4096", "--ulimit-rm", "memlock", "web"),
    )
    changed = container(control, pb.UpdateServiceRequest)
    assert (changed.dns_servers, changed.dns_search) == (("10.0.0.54",), ())
    assert changed.extra_hosts == ("db:10.0.0.6", "v6:2001:db8::1", "cache:10.0.0.7")
    assert changed.sysctls == {"net.ipv4.tcp_syncookies": "0"}
    assert changed.ulimits == (Ulimit("nofile", 4096, 4096),)
    pyswarm.ok("service", "update", "-d", "--host-rm", "db", "web")
    assert container(control, pb.UpdateServiceRequest).extra_hosts == ("v6:2001:db8::1", "cache:10.0.0.7")


def test_groups_and_the_oom_score_are_given_and_changed(pyswarm: Any, control: Any):
    pyswarm.ok(*CREATE, "--group", "audio", "--group", "44", "--oom-score-adj", "-500", "web:1")
    made = container(control, pb.CreateServiceRequest)
    assert (made.groups, made.oom_score_adj) == (("audio", "44"), -500)
    pyswarm.ok("service", "update", "-d", "--group-rm", "44", "--group-add", "video", "--oom-score-adj", "0", "web")
    changed = container(control, pb.UpdateServiceRequest)
    assert (changed.groups, changed.oom_score_adj) == (("audio", "video"), 0)


def test_a_terminal_is_asked_for(pyswarm: Any, control: Any):
    assert "warning" not in pyswarm.run(*CREATE, "-t", "web:1").err
    assert container(control, pb.CreateServiceRequest).tty


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--dns", "resolver"), "name server 'resolver' is no address"),
        (("--host", "db"), "extra host 'db' is none"),
        (("--sysctl", "kernel.panic=1"), "sysctl 'kernel.panic' is not the container's own"),
        (("--sysctl", "net.ipv4/../../kernel/panic=1"), "is not the container's own"),
        (("--sysctl", "net.core.somaxconn"), "has no value"),
        (("--ulimit", "nofile=2:1"), "the soft limit nofile is above the hard one"),
        (("--ulimit", "files=1"), "there is no limit called 'files'"),
        (("--ulimit", "nofile=a"), "Write NAME=SOFT[:HARD]."),
        (("--oom-score-adj", "1001"), "the OOM score is adjusted by 1001"),
        (("--group", "a:b"), "'a:b' is no group"),
    ],
)
def test_what_makes_no_sense_is_refused(pyswarm: Any, control: Any, flags: tuple[str, ...], said: str):
    assert said in pyswarm.fails(*CREATE, *flags, "web:1")


@pytest.mark.parametrize("flag", ["--network", "--memory-swap", "--isolation"])
def test_an_option_that_we_do_not_carry_out_is_refused_by_name(pyswarm: Any, control: Any, flag: str):
    said = pyswarm.run(*CREATE, flag, "1", "web:1")
    assert said.status == 125, "as for an option that nobody knows"
    assert f"{flag} is not supported" in said.err


@pytest.mark.parametrize("flag", ["--with-registry-auth", "--no-resolve-image"])
def test_an_option_without_effect_is_warned_of_by_name(pyswarm: Any, control: Any, flag: str):
    said = pyswarm.run(*CREATE, flag, "web:1")
    assert said.status == 0
    assert f"warning: {flag} has no effect" in said.err
