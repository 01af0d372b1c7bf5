"""Name servers, hosts, kernel settings and limits in a stack file."""

import re

import pytest

from pyswarm.proto.codec.stack_file import StackFile, parse_stack
from pyswarm.proto.errors import InvalidArgument, InvalidStackFile
from pyswarm.proto.model.spec import ContainerSpec, LogDriver, Ulimit


def parsed(*lines: str) -> StackFile:
    text = "services:\n  web:\n    image: web:1\n" + "".join(f"    {line}\n" for line in lines)
    return parse_stack([("shop.yaml", text)], stack="shop", environment={})


def web(*lines: str) -> ContainerSpec:
    return parsed(*lines).services[0].task_template.container_spec


@pytest.mark.parametrize("written", ["dns: 10.0.0.53", "dns: [10.0.0.53]"])
def test_one_name_server_may_stand_alone(written: str):
    assert web(written, "dns_search: [a.org, b.org]", "dns_opt: [ndots:2]").dns_servers == ("10.0.0.53",)


@pytest.mark.parametrize(
    "written", ['extra_hosts: ["db:10.0.0.5"]', "extra_hosts: [db=10.0.0.5]", "extra_hosts: {db: 10.0.0.5}"]
)
def test_hosts_are_read_in_every_spelling(written: str):
    assert web(written).extra_hosts == ("db:10.0.0.5",)


@pytest.mark.parametrize("written", ["sysctls: {net.core.somaxconn: 1024}", "sysctls: [net.core.somaxconn=1024]"])
def test_kernel_settings_are_read_in_every_spelling(written: str):
    assert web(written).sysctls == {"net.core.somaxconn": "1024"}


def test_limits_are_one_number_or_two():
    ulimits = web("ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}}").ulimits
    assert ulimits == (Ulimit("nproc", 65535, 65535), Ulimit("nofile", 20000, 40000))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("sysctls: {kernel.panic: 1}", r"services\.web.*sysctl 'kernel.panic' is not the container's own"),
        ("ulimits: {nofile: {soft: 5}}", "needs soft and hard"),
        ("ulimits: {nofile: many}", "must be a whole number"),
        ("extra_hosts: [db]", "extra host 'db' is none"),
    ],
)
def test_what_makes_no_sense_is_refused(written: str, said: str):
    with pytest.raises((InvalidStackFile, InvalidArgument), match=said):
        web(written)


def test_a_terminal_and_an_open_stdin_are_asked_for():
    container = web("tty: true", "stdin_open: true", "oom_score_adj: -7")
    assert (container.tty, container.open_stdin, container.oom_score_adj) == (True, True, -7)
    assert parsed("tty: true", "stdin_open: true").warnings == ()


def test_a_log_driver_is_read_with_its_options():
    template = parsed("logging: {driver: local, options: {max-size: 10m, max-file: 3}}").services[0].task_template
    assert template.log_driver == LogDriver("local", {"max-size": "10m", "max-file": "3"})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("logging: {driver: gelf}", "no log driver named 'gelf' is registered"),
        ("logging: {options: {max-sise: 1m}}", "unknown log opt 'max-sise' for json-file log driver"),
        ("logging: {options: {max-size: }}", "services.web.logging.options.max-size has no value"),
        ("logging: {drivers: local}", "services.web.logging.drivers"),
    ],
)
def test_a_log_driver_that_makes_no_sense_is_refused(written: str, said: str):
    with pytest.raises((InvalidArgument, InvalidStackFile), match=re.escape(said)):
        parsed(written)
