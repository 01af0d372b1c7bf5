"""When a container is well, ill, or still starting, whatever its probes say and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.proto.model.spec import HealthConfig
from pyswarm.worker.agent.health import Health, Verdict, after_probe, begun, effective, pause_before_probe

CONFIG = HealthConfig(test=("CMD", "true"), interval_seconds=10, timeout_seconds=1, retries=3, start_interval_seconds=2)
PATIENT = HealthConfig(
    test=("CMD", "true"), interval_seconds=10, retries=1, start_period_seconds=60, start_interval_seconds=2
)


def after(config: HealthConfig, *probes: tuple[float, bool], was_passing: bool = False) -> Health:
    health = begun(0.0, was_passing=was_passing)
    for now, passed in probes:
        health = after_probe(health, config, passed=passed, output="no\n answer", now=now)
    return health


@pytest.mark.parametrize(
    ("config", "probes", "verdict"),
    [
        pytest.param(CONFIG, [], Verdict.STARTING, id="nothing is known before the first probe"),
        pytest.param(CONFIG, [(0.1, True)], Verdict.PASSING, id="one that passes is enough"),
        pytest.param(CONFIG, [(2 * n, False) for n in range(15)], Verdict.STARTING, id="early failures count little"),
        pytest.param(CONFIG, [(10, False), (20, False), (30, False)], Verdict.FAILING, id="one an interval counts"),
        pytest.param(PATIENT, [(n, False) for n in range(60)], Verdict.STARTING, id="none in the start period"),
        pytest.param(PATIENT, [(59, False), (61, False)], Verdict.FAILING, id="but then"),
        pytest.param(CONFIG, [(1, True), (11, False), (21, False)], Verdict.PASSING, id="retries are given"),
        pytest.param(CONFIG, [(1, True), *((n, False) for n in (11, 21, 31))], Verdict.FAILING, id="and used up"),
    ],
)
def test_what_probes_mean(config, probes, verdict):
    assert after(config, *probes).verdict is verdict


def test_a_probe_that_passes_forgets_the_failures_before_it():
    assert after(CONFIG, (1, True), (11, False), (21, False), (31, True), (41, False), (51, False)).failures == 2


def test_what_a_failing_probe_wrote_is_kept_on_one_line():
    assert after(CONFIG, (1, False)).output == "no answer"


def test_a_container_known_to_be_well_is_not_probed_as_one_that_starts():
    assert pause_before_probe(after(CONFIG, was_passing=True), CONFIG) == 10
    assert pause_before_probe(after(CONFIG), CONFIG) == 2


@given(st.lists(st.tuples(st.floats(0.1, 40), st.booleans()), max_size=40))
def test_no_container_is_given_up_earlier_than_docker_would(steps):
    """Docker probes once an interval: it needs `retries` whole intervals to give up one that starts."""
    now, health, failed_since_pass = 0.0, begun(0.0, was_passing=False), 0
    for pause, passed in steps:
        now += pause
        health = after_probe(health, CONFIG, passed=passed, output="", now=now)
        failed_since_pass = 0 if passed else failed_since_pass + 1
        if health.verdict is Verdict.FAILING:
            assert failed_since_pass >= CONFIG.retries
            if not any(p for _, p in steps):
                assert now >= CONFIG.retries * CONFIG.interval_seconds


def test_the_service_overrides_the_image_value_by_value():
    image = HealthConfig(test=("CMD-SHELL", "curl -f localhost"), interval_seconds=5, retries=7)
    found = effective(HealthConfig(retries=2), image)
    assert found is not None
    assert (found.test, found.interval_seconds, found.retries) == (image.test, 5, 2)
    assert (found.timeout_seconds, found.start_interval_seconds) == (30, 5), "Docker's defaults"


@pytest.mark.parametrize(
    ("wanted", "image"),
    [
        pytest.param(HealthConfig(), HealthConfig(), id="nobody asks for it"),
        pytest.param(HealthConfig(test=("NONE",)), HealthConfig(test=("CMD", "x")), id="the service forbids it"),
        pytest.param(HealthConfig(), HealthConfig(test=("NONE",)), id="the image has none"),
    ],
)
def test_there_is_no_probe_when(wanted, image):
    assert effective(wanted, image) is None
