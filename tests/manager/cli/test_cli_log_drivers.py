"""Where the output of a service's tasks goes, as the command line gives, changes and shows it."""

import json
from typing import Any

import pytest

from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.model.spec import LogDriver, ServiceSpec
from pyswarm.proto.v1 import control_pb2 as pb

CREATE = ("service", "create", "-d", "--name", "web")


def wanted(control: Any, request: Any) -> LogDriver:
    return from_message(control.asked(request).spec, ServiceSpec).task_template.log_driver


def test_a_driver_is_given_changed_and_shown(pyswarm: Any, control: Any):
    pyswarm.ok(*CREATE, "--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=2", "web:1")
    assert wanted(control, pb.CreateServiceRequest) == LogDriver("local", {"max-size": "1m", "max-file": "2"})
    shown = json.loads(pyswarm.ok("service", "inspect", "web"))[0]["Spec"]["TaskTemplate"]["LogDriver"]
    assert shown == {"Name": "local", "Options": {"max-size": "1m", "max-file": "2"}}
    assert "max-file=2 max-size=1m" in pyswarm.ok("service", "inspect", "--pretty", "web")
    pyswarm.ok("service", "update", "-d", "--log-opt", "max-size=2m", "web")
    assert wanted(control, pb.UpdateServiceRequest) == LogDriver("local", {"max-size": "2m"})
    pyswarm.ok("service", "update", "-d", "--log-driver", "none", "web")
    assert wanted(control, pb.UpdateServiceRequest) == LogDriver("none", {})
    pyswarm.ok("service", "update", "-d", "--replicas", "2", "web")
    assert wanted(control, pb.UpdateServiceRequest) == LogDriver("none", {})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--log-driver", "gelf"), "no log driver named 'gelf' is registered"),
        (("--log-opt", "max-sise=1m"), "unknown log opt 'max-sise' for json-file log driver"),
    ],
)
def test_what_nobody_can_carry_out_is_refused_by_name(pyswarm: Any, control: Any, flags: tuple[str, ...], said: str):
    assert said in pyswarm.fails(*CREATE, *flags, "web:1")
