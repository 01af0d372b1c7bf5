"""Judge how a container is probed and ended (pure). Part of validate.py, which is the way in."""

from collections.abc import Iterator
from typing import Final

from pyswarm.proto.codec.problems import Problem, negative
from pyswarm.proto.model.spec import ContainerSpec, HealthConfig

KINDS: Final = ("NONE", "CMD", "CMD-SHELL", "HTTP", "TCP")
MIN_SECONDS: Final = 0.001
PORT_MAX: Final = 65535


def health_problems(spec: ContainerSpec) -> Iterator[Problem]:
    """Yield what is wrong with the checks, the hook and the delay of a container."""
    yield from _check_problems("health check", spec.healthcheck)
    yield from _check_problems("readiness check", spec.readiness)
    if spec.readiness != HealthConfig() and not spec.readiness.test:
        yield Problem("the readiness check has no test", "Say what to probe: a command, HTTP or TCP.")
    yield from negative("drain delay", spec.drain_delay_seconds)
    if any("\0" in word for word in spec.pre_stop):
        yield Problem("the pre-stop hook contains a NUL character", "Leave it out: no process can be given one.")


def _check_problems(what: str, config: HealthConfig) -> Iterator[Problem]:
    kind, words = (config.test[0], config.test[1:]) if config.test else ("", ())
    if kind and kind not in KINDS:
        yield Problem(f"the {what}'s test begins with {kind!r}", f"It begins with one of {', '.join(KINDS)}.")
    elif kind == "NONE" and (words or config != HealthConfig(test=("NONE",))):
        yield Problem(f"the {what} is turned off and set up at once", "Leave out either.")
    elif kind == "CMD" and not (words and words[0]):
        yield Problem(f"the {what} has no command", "Write the program and its arguments after CMD.")
    elif kind in ("CMD-SHELL", "HTTP", "TCP") and len(words) != 1:
        yield Problem(f"the {what}'s test has {len(words)} words after {kind}", f"Write one text after {kind}.")
    elif kind in ("HTTP", "TCP") and not _has_port(kind, words[0]):
        yield Problem(
            f"the {what} probes {words[0]!r}", "Write PORT/PATH for HTTP, PORT for TCP: a port of the container."
        )
    if any("\0" in word for word in words):
        yield Problem(f"the {what} contains a NUL character", "Leave it out: no process can be given one.")
    for name, seconds in (
        ("interval", config.interval_seconds),
        ("timeout", config.timeout_seconds),
        ("start period", config.start_period_seconds),
        ("start interval", config.start_interval_seconds),
    ):
        yield from negative(f"{what}: {name}", seconds)
        if 0 < seconds < MIN_SECONDS:
            yield Problem(f"the {what}'s {name} is {seconds:g} s", "Give at least one millisecond, or none.")
    yield from negative(f"{what}: retries", config.retries)


def _has_port(kind: str, target: str) -> bool:
    port, slash, path = target.partition("/")
    if kind == "TCP" and slash:
        return False
    is_path = path.isascii() and path.isprintable() and " " not in path
    return port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= PORT_MAX and is_path
