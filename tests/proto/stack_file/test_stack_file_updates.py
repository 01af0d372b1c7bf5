"""Update settings beyond Docker's in a stack file."""

from pyswarm.proto.codec.stack_file import parse_stack
from pyswarm.proto.model.spec import ServiceSpec

FILE = """services:
  web:
    image: web:1
    deploy:
      update_config: {canary: ["1", "25%"], progress_deadline: 2m}
      rollback_config: {progress_deadline: 0s}
      restart_policy: {max_delay: 5m}
"""


def web(*more: str) -> ServiceSpec:
    texts = [(f"{n}.yaml", text) for n, text in enumerate((FILE, *more))]
    return parse_stack(texts, stack="shop", environment={}).services[0]


def test_canaries_deadlines_and_back_off_are_read():
    spec = web()
    assert (spec.update_config.canary, spec.update_config.progress_deadline_seconds) == (("1", "25%"), 120.0)
    assert spec.rollback_config.progress_deadline_seconds == 0.0
    assert spec.task_template.restart_policy.max_delay_seconds == 300.0


def test_a_later_file_replaces_the_steps_as_a_whole():
    more = 'services:\n  web:\n    deploy:\n      update_config: {canary: ["2"]}\n'
    assert web(more).update_config.canary == ("2",)
