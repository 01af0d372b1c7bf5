"""The flags of updates and restarts beyond those of Docker, and updates held by people."""

from typing import Any

import pytest
from lib.builders import a_service
from msgspec.structs import replace

from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.model.objects import UpdateStatus
from pyswarm.proto.model.spec import ServiceSpec
from pyswarm.proto.model.states import UpdateState
from pyswarm.proto.v1 import control_pb2 as pb


def test_a_canary_deadlines_and_back_off_are_given(pyswarm: Any, control: Any):
    pyswarm.ok(
        *("service", "create", "-d", "--name", "web", "--update-canary", "1,25%", "--update-progress-deadline", "2m"),
        *("--rollback-progress-deadline", "0", "--restart-max-delay", "5m", "web:1"),
    )
    spec = from_message(control.asked(pb.CreateServiceRequest).spec, ServiceSpec)
    assert (spec.update_config.canary, spec.update_config.progress_deadline_seconds) == (("1", "25%"), 120.0)
    assert spec.rollback_config.progress_deadline_seconds == 0.0
    assert spec.task_template.restart_policy.max_delay_seconds == 300.0
    pyswarm.ok("service", "update", "-d", "--update-canary", "", "web")
    assert from_message(control.asked(pb.UpdateServiceRequest).spec, ServiceSpec).update_config.canary == ()


@pytest.mark.parametrize(
    ("steps", "said"),
    [("0,5", "canary step '0' is none"), ("1,101%", "'101%' is none"), ("5,1", "do not grow"), ("a", "'a' is none")],
)
def test_canary_steps_that_make_no_sense_are_refused(pyswarm: Any, control: Any, steps: str, said: str):
    assert said in pyswarm.fails("service", "create", "-d", "--name", "web", "--update-canary", steps, "web:1")


@pytest.mark.parametrize(("flag", "hold"), [("--pause", pb.UPDATE_PAUSE), ("--resume", pb.UPDATE_RESUME)])
def test_an_update_is_paused_and_resumed_by_request(pyswarm: Any, control: Any, flag: str, hold: Any):
    control.add(replace(a_service("web"), update_status=UpdateStatus(UpdateState.UPDATING, 1.0)))
    assert pyswarm.ok("service", "update", "-d", flag, "web").strip() == "web"
    asked = control.asked(pb.UpdateServiceRequest)
    assert (asked.hold, asked.version) == (hold, 1)


def test_holding_an_update_changes_nothing_else(pyswarm: Any, control: Any):
    control.add(a_service("web"))
    said = pyswarm.fails("service", "update", "-d", "--pause", "--image", "web:2", "web")
    assert "--pause cannot be combined with --image" in said
