"""The harness of `make bench-scale`, as small as it goes: real managers, real sessions, simulated containers."""

from pathlib import Path

from lib.scale.run import Size, measure


async def test_many_agents_and_three_managers_come_through_every_phase(tmp_path: Path):
    size = Size(agents=10, tasks=60, rest_seconds=1.0, failing_seconds=2.0, patience_seconds=45.0)
    figures = await measure(size, tmp_path)
    assert figures["api_failures"] == 0
    assert figures["lost_tasks"] > 0
    assert 0 < figures["dispatch_p50_s"] <= figures["dispatch_p99_s"] < 30
    assert 0 < figures["api_p50_s"] <= figures["api_p99_s"] < 30
    assert 0 < figures["manager_rss_mib"] < 500
