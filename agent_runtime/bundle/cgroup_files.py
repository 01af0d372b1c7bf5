"""What `linux.resources` means as cgroup files, v1 and v2, with the specification's conversions. Pure.

0 or nothing means "not given", -1 "no limit". A setting that was asked for and has no file is an error, but for the
few that kernels have dropped. Device rules in v2 are a program, see `kernel/device_filter.py`.
"""

import math

from pyswarm.agent_runtime.bundle.spec_linux import BlockIO, CpuLimit, DeviceRule, MemoryLimit, Resources
from pyswarm.agent_runtime.kernel.cgroup_limits import DEVICES_ALLOWED, Setting


def v1_files(resources: Resources, *, memory_before: int = -1) -> list[Setting]:
    """Return what to write. `memory_before` is the limit of memory and swap in force, -1 for none: memory alone may
    never exceed it, at no moment."""
    return [
        *_v1_memory(resources.memory, memory_before),
        *_v1_cpu(resources.cpu),
        *_pids(resources),
        *_v1_block_io(resources.block_io),
        *(Setting("hugetlb", f"hugetlb.{each.page_size}.limit_in_bytes", str(each.limit))
          for each in resources.hugepage_limits),
        *_v1_network(resources),
        *_rdma(resources),
        *(_v1_device(rule) for rule in resources.devices),
    ]  # fmt: skip


def v2_files(resources: Resources) -> list[Setting]:
    return [
        *_v2_memory(resources.memory),
        *_v2_cpu(resources.cpu),
        *_pids(resources),
        *_v2_block_io(resources.block_io),
        *(Setting("hugetlb", f"hugetlb.{each.page_size}.max", str(each.limit)) for each in resources.hugepage_limits),
        *_rdma(resources),
        *(Setting(key.partition(".")[0], key, value) for key, value in resources.unified.items()),
    ]


def default_devices() -> list[Setting]:
    """What every container may use, whatever the rules say: null, zero, terminals and the like."""
    return [Setting("devices", "devices.allow", rule) for rule in DEVICES_ALLOWED]


def cpu_weight(shares: int) -> int:
    """Return the v2 weight for v1 shares: 2..262144 onto 1..10000 with 1024 at 100, by the kernel's new formula."""
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """Return the v2 weight for a v1 one: 10..1000 onto 1..10000."""
    return 1 + (weight - 10) * 9999 // 990


def _v1_memory(memory: MemoryLimit, before: int) -> list[Setting]:
    limits = []
    if memory.limit:
        limits.append(Setting("memory", "memory.limit_in_bytes", str(memory.limit)))
    if memory.swap:
        limits.append(Setting("memory", "memory.memsw.limit_in_bytes", str(memory.swap), optional=memory.swap < 0))
    if memory.limit == -1 or 0 <= before < memory.limit:
        limits.reverse()
    others = [
        Setting("memory", name, str(value))
        for name, value in (
            ("memory.soft_limit_in_bytes", memory.reservation or None),
            ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp or None),
            ("memory.swappiness", memory.swappiness),
            ("memory.oom_control", 1 if memory.disable_oom_killer else None),
        )
        if value is not None
    ]
    if memory.kernel:  # gone from kernels since 5.16
        others.append(Setting("memory", "memory.kmem.limit_in_bytes", str(memory.kernel), optional=True))
    return [*limits, *others]


def _v2_memory(memory: MemoryLimit) -> list[Setting]:
    settings = []
    if memory.limit:
        settings.append(Setting("memory", "memory.max", _or_max(memory.limit)))
    if memory.swap:
        # v1 counts memory and swap together, v2 swap alone.
        swap = memory.swap if memory.swap < 0 else memory.swap - max(0, memory.limit)
        settings.append(Setting("memory", "memory.swap.max", _or_max(swap), optional=True))
    if memory.reservation:
        settings.append(Setting("memory", "memory.low", _or_max(memory.reservation)))
    return settings


def _v1_cpu(cpu: CpuLimit) -> list[Setting]:
    files = (
        ("cpu", "cpu.shares", cpu.shares or None), ("cpu", "cpu.rt_period_us", cpu.realtime_period or None),
        ("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime or None), ("cpu", "cpu.cfs_period_us", cpu.period or None),
        ("cpu", "cpu.cfs_quota_us", cpu.quota or None), ("cpu", "cpu.cfs_burst_us", cpu.burst),
        ("cpu", "cpu.idle", cpu.idle), ("cpuset", "cpuset.cpus", cpu.cpus or None),
        ("cpuset", "cpuset.mems", cpu.mems or None),
    )  # fmt: skip
    return [Setting(controller, file, str(value)) for controller, file, value in files if value is not None]


def _v2_cpu(cpu: CpuLimit) -> list[Setting]:
    settings = []
    if cpu.idle is not None:
        settings.append(Setting("cpu", "cpu.idle", str(cpu.idle)))
    if cpu.shares:
        settings.append(Setting("cpu", "cpu.weight", str(cpu_weight(cpu.shares))))
    if cpu.quota or cpu.period:
        quota = _or_max(cpu.quota or -1)
        settings.append(Setting("cpu", "cpu.max", f"{quota} {cpu.period or 100_000}"))
    if cpu.burst is not None:
        settings.append(Setting("cpu", "cpu.max.burst", str(cpu.burst)))
    if cpu.cpus:
        settings.append(Setting("cpuset", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        settings.append(Setting("cpuset", "cpuset.mems", cpu.mems))
    return settings


def _pids(resources: Resources) -> list[Setting]:
    if resources.pids is None or resources.pids.limit == 0:
        return []
    return [Setting("pids", "pids.max", _or_max(resources.pids.limit))]


def _v1_block_io(block_io: BlockIO) -> list[Setting]:
    settings = []
    if block_io.weight:  # CFQ's blkio.weight is gone from kernels since 5.0: BFQ has its own, where it is loaded
        settings.append(Setting("blkio", "blkio.bfq.weight", str(block_io.weight), optional=True))
    for each in block_io.weight_device:
        value = f"{each.major}:{each.minor} {each.weight}"
        settings.append(Setting("blkio", "blkio.bfq.weight_device", value, optional=True))
    for name, devices in (
        ("read_bps", block_io.throttle_read_bps_device), ("write_bps", block_io.throttle_write_bps_device),
        ("read_iops", block_io.throttle_read_iops_device), ("write_iops", block_io.throttle_write_iops_device),
    ):  # fmt: skip
        file = f"blkio.throttle.{name}_device"
        settings += [Setting("blkio", file, f"{each.major}:{each.minor} {each.rate}") for each in devices]
    return settings


def _v2_block_io(block_io: BlockIO) -> list[Setting]:
    settings = []
    if block_io.weight:
        settings.append(Setting("io", "io.weight", f"default {io_weight(block_io.weight)}", optional=True))
    for each in block_io.weight_device:
        value = f"{each.major}:{each.minor} {io_weight(each.weight)}"
        settings.append(Setting("io", "io.weight", value, optional=True))
    for name, devices in (
        ("rbps", block_io.throttle_read_bps_device), ("wbps", block_io.throttle_write_bps_device),
        ("riops", block_io.throttle_read_iops_device), ("wiops", block_io.throttle_write_iops_device),
    ):  # fmt: skip
        settings += [Setting("io", "io.max", f"{one.major}:{one.minor} {name}={one.rate}") for one in devices]
    return settings


def _v1_network(resources: Resources) -> list[Setting]:
    settings = []
    if resources.network.class_id is not None:
        settings.append(Setting("net_cls", "net_cls.classid", str(resources.network.class_id)))
    for each in resources.network.priorities:
        settings.append(Setting("net_prio", "net_prio.ifpriomap", f"{each.name} {each.priority}"))
    return settings


def _rdma(resources: Resources) -> list[Setting]:
    settings = []
    for device, limit in resources.rdma.items():
        handles, objects = ("max" if value is None else str(value) for value in (limit.hca_handles, limit.hca_objects))
        settings.append(Setting("rdma", "rdma.max", f"{device} hca_handle={handles} hca_object={objects}"))
    return settings


def _v1_device(rule: DeviceRule) -> Setting:
    file = "devices.allow" if rule.allow else "devices.deny"
    if rule.type == "a" and rule.major < 0 and rule.minor < 0:
        return Setting("devices", file, "a")
    numbers = ":".join("*" if number < 0 else str(number) for number in (rule.major, rule.minor))
    return Setting("devices", file, f"{rule.type} {numbers} {rule.access or 'rwm'}")


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)
