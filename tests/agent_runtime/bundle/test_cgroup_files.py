"""Resources as cgroup files, with the specification's conversions between the versions."""

import pytest

from pyswarm.agent_runtime.bundle.cgroup_files import cpu_weight, io_weight, v1_files, v2_files
from pyswarm.agent_runtime.bundle.spec_linux import (
    BlockIO,
    CpuLimit,
    DeviceRule,
    MemoryLimit,
    PidsLimit,
    Resources,
    ThrottleDevice,
)
from pyswarm.agent_runtime.kernel.cgroup_limits import Setting

WANTED = Resources(
    memory=MemoryLimit(limit=100, swap=150, reservation=50),
    cpu=CpuLimit(shares=1024, quota=50_000, period=100_000, cpus="0-1"),
    pids=PidsLimit(-1),
    block_io=BlockIO(weight=500, throttle_read_bps_device=(ThrottleDevice(8, 0, 1000),)),
    devices=(DeviceRule(False, access="rwm"), DeviceRule(True, "c", 10, 200, "rw")),
)


def written(settings: list[Setting]) -> list[tuple[str, str]]:
    return [(setting.file, setting.value) for setting in settings]


def test_v1_files() -> None:
    assert written(v1_files(WANTED)) == [
        ("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "150"),
        ("memory.soft_limit_in_bytes", "50"), ("cpu.shares", "1024"), ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"), ("cpuset.cpus", "0-1"), ("pids.max", "max"), ("blkio.bfq.weight", "500"),
        ("blkio.throttle.read_bps_device", "8:0 1000"), ("devices.deny", "a"), ("devices.allow", "c 10:200 rw"),
    ]  # fmt: skip


def test_v2_files_count_swap_alone() -> None:
    assert written(v2_files(WANTED)) == [
        ("memory.max", "100"), ("memory.swap.max", "50"), ("memory.low", "50"), ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"), ("cpuset.cpus", "0-1"), ("pids.max", "max"), ("io.weight", "default 4950"),
        ("io.max", "8:0 rbps=1000"),
    ]  # fmt: skip


def test_the_limit_of_memory_and_swap_is_raised_first_and_lowered_last() -> None:
    memory = Resources(memory=MemoryLimit(limit=200, swap=200))
    assert v1_files(memory, memory_before=100)[0].file == "memory.memsw.limit_in_bytes"
    assert v1_files(memory, memory_before=300)[0].file == "memory.limit_in_bytes"
    assert v1_files(memory, memory_before=-1)[0].file == "memory.limit_in_bytes"


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (512, 59), (1024, 100), (262_144, 10_000), (1, 1)])
def test_cpu_shares_become_a_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize(("old", "new"), [(10, 1), (1000, 10_000), (500, 4950)])
def test_a_block_io_weight_is_scaled(old: int, new: int) -> None:
    assert io_weight(old) == new
