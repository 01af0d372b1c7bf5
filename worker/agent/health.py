"""Decide whether a container is well, from its probes (pure): when to probe next, and what a probe's outcome means.

A container is STARTING until its first probe passes. It is FAILING after `retries` failures in a row; while it starts,
failures count once an interval and not within the start period, so it is never given up earlier than by Docker. But it
is probed at once and then every start interval, so it is seen to be well as early as it is. Times are monotonic.
"""

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from pyswarm.proto.model.spec import HealthConfig

OUTPUT_CHARACTERS = 300
"""Of what a failing probe wrote, what is told to the managers."""


class Verdict(Enum):
    STARTING = "starting"
    PASSING = "passing"
    FAILING = "failing"


class Health(Struct, frozen=True):
    """`failures` count in a row, the last one at `counted_at`; before the first, that is when the container started."""

    verdict: Verdict
    started_at: float
    counted_at: float
    failures: int = 0
    output: str = ""


def effective(wanted: HealthConfig, image: HealthConfig) -> HealthConfig | None:
    """Return the probe to make: what the service says, else the image, else Docker's defaults; None for no probe."""
    test = wanted.test or image.test
    if not test or test[0] == "NONE":
        return None
    return HealthConfig(
        test=test,
        interval_seconds=wanted.interval_seconds or image.interval_seconds or 30.0,
        timeout_seconds=wanted.timeout_seconds or image.timeout_seconds or 30.0,
        retries=wanted.retries or image.retries or 3,
        start_period_seconds=wanted.start_period_seconds or image.start_period_seconds,
        start_interval_seconds=wanted.start_interval_seconds or image.start_interval_seconds or 5.0,
    )


def begun(started_at: float, *, was_passing: bool) -> Health:
    """Return the health of a container that started then; `was_passing`: we knew it well before we were restarted."""
    return Health(Verdict.PASSING if was_passing else Verdict.STARTING, started_at, started_at)


def after_probe(health: Health, config: HealthConfig, *, passed: bool, output: str, now: float) -> Health:
    """Return the health after one more probe."""
    if passed:
        return Health(Verdict.PASSING, health.started_at, now)
    output = " ".join(output.split())[-OUTPUT_CHARACTERS:]
    if health.verdict is Verdict.STARTING:
        is_early = now - health.started_at < config.start_period_seconds
        if is_early or now - health.counted_at < config.interval_seconds:
            return replace(health, output=output)
    failures = health.failures + 1
    verdict = Verdict.FAILING if failures >= config.retries else health.verdict
    return replace(health, verdict=verdict, failures=failures, counted_at=now, output=output)


def pause_before_probe(health: Health, config: HealthConfig) -> float:
    """Return how many seconds to wait between the end of a probe and the next one."""
    if health.verdict is Verdict.STARTING:
        return min(config.interval_seconds, config.start_interval_seconds)
    return config.interval_seconds
