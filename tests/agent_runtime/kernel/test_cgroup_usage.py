"""Reading what a container has used: every version's files, and files that are not there."""

from pathlib import Path

from pyswarm.agent_runtime.kernel.cgroup_layout import Layout
from pyswarm.agent_runtime.kernel.cgroup_usage import (
    Pressure,
    parse_io_stat,
    parse_net_dev,
    parse_pressure,
    read_usage,
)
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.agent_runtime.kernel.process_table import parse_process


def fill(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_v2_files(tmp_path: Path) -> None:
    fill(
        tmp_path / "p/box",
        {
            "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 4\nthrottled_usec 7\n",
            "memory.current": "1000\n",
            "memory.stat": "anon 1\ninactive_file 300\n",
            "memory.max": "max\n",
            "pids.current": "2\n",
            "pids.max": "10\n",
            "io.stat": "8:0 rbytes=100 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
            "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=9\n",
        },
    )
    usage = read_usage(Cgroups(Layout({}, tmp_path), "p"), "box")
    assert (usage.cpu, usage.cpu_user, usage.cpu_system, usage.throttled_periods, usage.throttled) == (
        5000, 3000, 2000, 4, 7000,
    )  # fmt: skip
    assert (usage.memory, usage.memory_inactive, usage.memory_limit) == (1000, 300, 0)
    assert (usage.pids, usage.pids_limit, usage.read, usage.written) == (2, 10, 101, 22)
    assert usage.pressure == {"cpu": Pressure(some=(1.5, 0.25, 0.0), some_total=9)}


def test_v1_files(tmp_path: Path) -> None:
    fill(tmp_path / "cpu/p/box", {"cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 7\n",
                                  "cpuacct.usage": "5000\n", "cpuacct.stat": "user 2\nsystem 1\n"})  # fmt: skip
    fill(tmp_path / "memory/p/box", {"memory.usage_in_bytes": "1000\n",
                                     "memory.limit_in_bytes": "9223372036854771712\n",
                                     "memory.stat": "inactive_file 1\ntotal_inactive_file 300\n"})  # fmt: skip
    fill(tmp_path / "pids/p/box", {"pids.current": "2\n", "pids.max": "max\n", "cgroup.procs": ""})
    v1 = {
        "cpu": tmp_path / "cpu",
        "cpuacct": tmp_path / "cpu",
        "memory": tmp_path / "memory",
        "pids": tmp_path / "pids",
    }
    usage = read_usage(Cgroups(Layout(v1, None), "p"), "box")
    assert (usage.cpu, usage.cpu_user, usage.cpu_system, usage.throttled) == (5000, 20_000_000, 10_000_000, 7)
    assert (usage.memory, usage.memory_inactive, usage.memory_limit) == (1000, 300, 0)
    assert (usage.pids, usage.pids_limit) == (2, 0)


def test_one_that_has_gone_has_used_nothing(tmp_path: Path) -> None:
    usage = read_usage(Cgroups(Layout({}, tmp_path), "p"), "box")
    assert (usage.cpu, usage.memory, usage.pids, usage.pressure) == (0, 0, 0, {})


def test_pressure_has_two_lines() -> None:
    text = "some avg10=1.00 avg60=2.00 avg300=3.00 total=4\nfull avg10=5.00 avg60=6.00 avg300=7.00 total=8\n"
    assert parse_pressure(text) == Pressure((1.0, 2.0, 3.0), 4, (5.0, 6.0, 7.0), 8)


def test_a_device_without_counters_is_no_io() -> None:
    assert parse_io_stat("8:0\n") == (0, 0)


def test_loopback_is_no_network() -> None:
    lines = ["Inter-| Receive", " face |bytes", "    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0",
             "  eth0: 100 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0", "  eth1:7 1 0 0 0 0 0 0 3 1 0 0 0 0 0 0"]  # fmt: skip
    assert parse_net_dev(lines) == (107, 53)


def test_a_process_may_have_any_name_and_no_arguments() -> None:
    stat = f"7 (a) b (c) S 1 7 7 {136 << 8 | 3} 7 0 0 0 0 0 150 50 0 0 20 0 1 0 1000 0"
    process = parse_process(7, 0, stat, b"", 100.0)
    assert (process.command, process.parent_pid, process.terminal) == ("[a) b (c]", 1, "pts/3")
    assert (process.cpu_seconds, process.started_at) == (2.0, 110.0)
