"""A service's `healthcheck`, `readiness` and `pre_stop`, to the model."""

from pyswarm.proto.codec.stack_file.document import Scalar, Sequence, Table, failure
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.vocabulary import HEALTHCHECK, PRE_STOP
from pyswarm.proto.codec.validate_health import KINDS
from pyswarm.proto.model.spec import HealthConfig


def check_of(service: Section, key: str, warnings: list[str]) -> HealthConfig:
    """Return the check under `key`. Raises InvalidStackFile."""
    section = service.section(key)
    section.check_keys(HEALTHCHECK, warnings)
    test = _test(section)
    if section.flag("disable"):
        if len(section.table.entries) > 1:
            raise failure(section.place, f"{section.path} is disabled and set up at once", "Leave out either.")
        return HealthConfig(test=("NONE",))
    return HealthConfig(
        test=test,
        interval_seconds=section.duration("interval"),
        timeout_seconds=section.duration("timeout"),
        retries=section.whole("retries"),
        start_period_seconds=section.duration("start_period"),
        start_interval_seconds=section.duration("start_interval"),
    )


def _test(section: Section) -> tuple[str, ...]:
    node = section.get("test")
    if node is None:
        return ()
    if isinstance(node, Scalar):
        return ("CMD-SHELL", section.text("test"))
    test = section.texts("test")
    if not test or test[0] not in KINDS:
        raise section.wrong("test", node, f"a line, or a list that begins with {', '.join(KINDS)}")
    return test


def pre_stop_of(service: Section, warnings: list[str]) -> tuple[str, ...]:
    """Return the command of the one hook under `pre_stop`. Raises InvalidStackFile."""
    node = service.get("pre_stop")
    if node is None:
        return ()
    if not isinstance(node, Sequence) or len(node.items) != 1 or not isinstance(node.items[0], Table):
        raise service.wrong("pre_stop", node, "a list of one hook", "Write - command: ….")
    hook = Section(node.items[0], service.name("pre_stop"))
    hook.check_keys(PRE_STOP, warnings)
    command = hook.get("command")
    words = hook.words("command")
    if not words:
        raise failure(hook.place, f"{hook.path} has no command", "Write command: what to execute.")
    # A line is for a shell, as everywhere in Compose hooks; a list is executed as it is.
    return ("/bin/sh", "-c", command.text) if isinstance(command, Scalar) else words
