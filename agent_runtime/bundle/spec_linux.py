"""The `linux` object of an OCI `config.json`: namespaces, devices, resources, seccomp, in frozen records."""

import msgspec
from msgspec import field


class IdMapping(msgspec.Struct, frozen=True, rename={"container_id": "containerID", "host_id": "hostID"}):
    container_id: int
    host_id: int
    size: int


class Namespace(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    path: str = ""


class MemoryLimit(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    limit: int = 0
    swap: int = 0
    reservation: int = 0
    kernel: int = 0
    kernel_tcp: int = field(default=0, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool = field(default=False, name="disableOOMKiller")
    use_hierarchy: bool = False
    check_before_update: bool = False


class CpuLimit(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    quota: int = 0
    period: int = 0
    shares: int = 0
    burst: int | None = None
    realtime_runtime: int = 0
    realtime_period: int = 0
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class PidsLimit(msgspec.Struct, frozen=True):
    limit: int = 0


class DeviceRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may be done with devices; -1 or nothing stands for every number."""

    allow: bool = False
    type: str = "a"
    major: int = -1
    minor: int = -1
    access: str = ""


class WeightDevice(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    major: int
    minor: int
    weight: int = 0
    leaf_weight: int = 0


class ThrottleDevice(msgspec.Struct, frozen=True):
    major: int
    minor: int
    rate: int


class BlockIO(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    weight: int = 0
    leaf_weight: int = 0
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleWriteIOPSDevice")


class HugepageLimit(msgspec.Struct, frozen=True, rename="camel"):
    page_size: str
    limit: int


class InterfacePriority(msgspec.Struct, frozen=True):
    name: str
    priority: int


class NetworkClass(msgspec.Struct, frozen=True, omit_defaults=True):
    class_id: int | None = field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class RdmaLimit(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    memory: MemoryLimit = MemoryLimit()
    cpu: CpuLimit = CpuLimit()
    pids: PidsLimit | None = None
    devices: tuple[DeviceRule, ...] = ()
    block_io: BlockIO = field(default=BlockIO(), name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkClass = NetworkClass()
    rdma: dict[str, RdmaLimit] = {}
    unified: dict[str, str] = {}


class Device(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0


class SyscallArgument(msgspec.Struct, frozen=True, rename="camel"):
    index: int
    value: int
    op: str
    value_two: int = 0


class SyscallRule(msgspec.Struct, frozen=True, rename="camel"):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArgument, ...] = ()


class Seccomp(msgspec.Struct, frozen=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SyscallRule, ...] = ()


class Personality(msgspec.Struct, frozen=True):
    domain: str = "LINUX"
    flags: tuple[str, ...] = ()


class TimeOffset(msgspec.Struct, frozen=True):
    secs: int = 0
    nanosecs: int = 0


class Linux(msgspec.Struct, frozen=True, rename="camel"):
    namespaces: tuple[Namespace, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    sysctl: dict[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    mount_label: str = ""
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = {}
    intel_rdt: dict[str, object] = {}
