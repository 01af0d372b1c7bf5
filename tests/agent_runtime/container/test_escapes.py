"""The published ways out of a container, tried one by one. What each defends: docs/reference/container-security.md.

Attackers are programs in Python that run inside, with the machine's libraries mounted read-only.
"""

import asyncio
import os
import shutil
import stat
import sys
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lib.runtime_host import RuntimeHost, runtime_host

from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]

MIB = 1024 * 1024
EXECS = 60
STARTS = 40


@pytest.fixture
def host(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


def bind(source: object, target: str, *, read_only: bool = False) -> types.Mount:
    return types.Mount(type=types.BIND, source=str(source), target=target, read_only=read_only)


async def attack(host: RuntimeHost, name: str, script: str, *mounts: types.Mount, **config: Any) -> None:
    """Start a container that runs `script` in Python."""
    trees = ("/lib", "/lib64", "/usr/lib", sys.base_prefix)
    libraries = [bind(path, path, read_only=True) for path in trees if os.path.isdir(path)]
    env = [f"PYTHONHOME={sys.base_prefix}", f"LD_LIBRARY_PATH={sysconfig.get_config_var('LIBDIR')}"]
    program = os.path.realpath(sys.executable)
    await host.start(name, program, "-I", "-S", "-c", script, mounts=[*libraries, *mounts], env=env, **config)


async def execute(host: RuntimeHost, container: str, *args: str, **config: Any) -> tuple[int, str, str]:
    async def send() -> AsyncIterator[pb.ExecInput]:
        yield pb.ExecInput(start=pb.ExecConfig(container=container, args=args, **config))

    said = b""
    async with asyncio.timeout(30):
        async for output in host.stub.ExecContainer(send()):
            said += output.stdout + output.stderr
    return output.end.exit_code, output.end.error, said.decode()


# A process that joins (setns races, ptrace across exec, descriptors and memory of ours)

_SPY = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
me, kin = os.getpid(), "/bin/busybox"
foreign = refused = 0
print("spying", flush=True)
while not stop:
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == me:
            continue
        foreign += 1
        place = f"/proc/{pid}"
        try:
            if os.readlink(f"{place}/exe") == kin:
                continue  # it has become what it was to be
            print("saw", os.readlink(f"{place}/exe"))
        except PermissionError:
            refused += 1
        except OSError:
            continue
        # Busybox would be harmless: whatever opens while it is still ours has to be looked at again.
        for name in ("mem", "environ", "root/work", "cwd/work", "map_files", "fd/3", "fd/0"):
            try:
                found = os.open(f"{place}/{name}", os.O_RDONLY)
            except OSError:
                continue
            try:
                if os.readlink(f"{place}/exe") != kin:
                    print("opened", name)
            except OSError:
                pass
            os.close(found)
        if libc.ptrace(0x4206, int(pid), 0, 0) == 0:  # PTRACE_SEIZE
            try:
                if os.readlink(f"{place}/exe") != kin:
                    print("traced")
            except OSError:
                pass
            libc.ptrace(0x4207, int(pid), 0, 0)  # PTRACE_INTERRUPT: only a stopped process can be let go
            os.waitpid(int(pid), 0x40000000)
            libc.ptrace(17, int(pid), 0, 0)
print("foreign", foreign > 0, "refused", refused > 0, flush=True)
"""


async def test_a_hostile_container_sees_nothing_of_ours_in_processes_that_join_it(host: RuntimeHost) -> None:
    await attack(host, "spy", _SPY)
    await host.follow_until("spy", "spying")
    for _ in range(EXECS // 4):
        joined = await asyncio.gather(*(execute(host, "spy", "/bin/busybox", "true") for _ in range(4)))
        assert {code for code, _, _ in joined} <= {0}
    await host.stop("spy")
    # It did look, and was refused while they were ours.
    assert await host.lines("spy") == ["spying", "foreign True refused True"]


async def test_a_process_that_joins_has_only_its_streams_and_is_in_no_ancestors_cgroup(host: RuntimeHost) -> None:
    await host.start("box", "sleep", "1000")
    _, _, said = await execute(host, "box", "sh", "-c", "ls /proc/self/fd; cat /proc/self/cgroup")
    lines = said.splitlines()
    assert lines[:4] == ["0", "1", "2", "3"]
    assert {line.split(":", 2)[2] for line in lines[4:]} == {"/"}


async def test_a_working_directory_that_the_image_made_a_link_to_a_descriptor_leads_nowhere(host: RuntimeHost) -> None:
    script = "for n in 3 4 5 6 7 8 9 10 11; do ln -s /proc/self/fd/$n /fd$n; done; echo made; exec sleep 1000"
    await host.start("links", "sh", "-c", script)
    await host.follow_until("links", "made")
    for number in range(3, 12):
        code, error, said = await execute(host, "links", "cat", "work/main/README.md", dir=f"/fd{number}")
        assert code != 0, said
        assert "working directory" in error


async def test_inheritable_and_ambient_capabilities_are_empty_for_every_user(host: RuntimeHost) -> None:
    await host.start("box", "sleep", "1000")
    for user in ("", "web"):
        _, _, said = await execute(host, "box", "grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status", user=user)
        assert [int(line.split()[1], 16) for line in said.splitlines()] == [0, 0]


# Mounts: symlink exchange, fake devices, procfs

_EXCHANGE = """
import ctypes, os, signal
libc, stop = ctypes.CDLL(None), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
os.mkdir("/v/real")
os.symlink(OUTSIDE, "/v/link")
swaps = 0
while not stop:
    libc.syscall(RENAMEAT2, -100, b"/v/real", -100, b"/v/link", 2)  # RENAME_EXCHANGE
    swaps += 1
    if swaps == 1000:
        print("swapping", flush=True)
"""


async def test_links_exchanged_while_mounts_are_made_never_lead_outside(host: RuntimeHost, tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    script = _EXCHANGE.replace("OUTSIDE", repr(f"../../../..{outside}")).replace("RENAMEAT2", str(number))
    await attack(host, "exchange", script, bind(volume, "/v"))
    await host.follow_until("exchange", "swapping")
    before = Path("/proc/self/mountinfo").read_text()
    mounts = [
        bind(volume, "/v"),
        types.Mount(type=types.TMPFS, target="/v/real/made"),
        bind(volume, "/v/link/bound"),
    ]
    outcomes = set()
    for index in range(STARTS):
        try:
            await host.start(f"victim-{index}", "cat", f"{outside}/secret", mounts=mounts)
            outcomes.add((await host.wait(f"victim-{index}")).exit_code)
        except FailedPrecondition as refused:
            assert "/v/" in str(refused)  # noqa: PT017 - it may win or lose the race, nothing else
        await host.remove(f"victim-{index}", force=True)
    assert outcomes <= {1}
    assert list(outside.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == before


async def test_an_images_own_null_device_is_not_what_hides_the_kernels_files(layer: Path, tmp_path: Path) -> None:
    image, target = tmp_path / "image", tmp_path / "target"
    shutil.copytree(layer, image, symlinks=True)
    target.write_text("untouched")
    for name in ("null", "zero", "console", "ptmx", "pts", "stdout"):
        (image / "dev" / name).symlink_to(f"../../../../..{target}")
    async with runtime_host(image) as own:
        hidden = "cat /proc/keys /proc/timer_list 2>/dev/null | wc -c"
        script = f"stat -c '%F %t:%T' /dev/null; {hidden}; echo gone > /dev/null; echo said"
        assert await own.shell(script) == (0, ["character special file 1:3", "0", "said"])
    assert target.read_text() == "untouched"


@pytest.mark.parametrize("name", ["dev", "sys"])
async def test_an_image_cannot_put_a_kernels_tree_behind_a_link(layer: Path, tmp_path: Path, name: str) -> None:
    image = tmp_path / "image"
    shutil.copytree(layer, image, symlinks=True)
    (image / name).rmdir()
    (image / name).symlink_to("/tmp")
    async with runtime_host(image) as own:
        with pytest.raises(FailedPrecondition, match=f"/{name}"):
            await own.start("linked", "true")


# cgroups, keys, devices, set-user-id programs


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("mkdir /tmp/c && mount -t cgroup -o memory none /tmp/c", id="mount a cgroup hierarchy"),
        pytest.param("mkdir /tmp/c && mount -t cgroup2 none /tmp/c", id="mount cgroup2"),
        pytest.param("unshare -UrmC mount -t cgroup none /tmp", id="by a user namespace"),
        pytest.param("find / -name release_agent 2>/dev/null | grep .", id="find a release agent"),
        pytest.param(
            "for f in $(find / -type f \\( -name cgroup.procs -o -name tasks \\)); do echo 0 > $f && exit; done; false",
            id="join another cgroup",
        ),
        pytest.param("echo '|/bin/busybox' > /proc/sys/kernel/core_pattern", id="core pattern"),
        pytest.param("echo /bin/busybox > /proc/sys/kernel/modprobe", id="modprobe"),
        pytest.param("echo /bin/busybox > /sys/kernel/uevent_helper", id="uevent helper"),
        pytest.param("echo x > /proc/sys/fs/binfmt_misc/register", id="binfmt_misc"),
    ],
)
async def test_no_way_out_through_the_kernels_helpers(host: RuntimeHost, attempt: str) -> None:
    code, lines = await host.shell(attempt)
    assert code != 0, lines


_KEYS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number, *arguments in (KEYCTL, 0, -3, 0), (KEYCTL, 11, -3, 0), (REQUEST, b"user", b"secret", None, -3):
    print(libc.syscall(number, *arguments), ctypes.get_errno())
"""


async def test_keyrings_are_out_of_reach(host: RuntimeHost) -> None:
    keyctl, request = {"x86_64": (250, 249), "aarch64": (219, 218)}[os.uname().machine]
    await attack(host, "keys", _KEYS.replace("KEYCTL", str(keyctl)).replace("REQUEST", str(request)))
    assert (await host.wait("keys")).exit_code == 0
    assert await host.lines("keys") == ["-1 1"] * 3


async def test_device_nodes_in_a_volume_cannot_be_opened(host: RuntimeHost, tmp_path: Path) -> None:
    os.mknod(tmp_path / "mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    script = "for f in /v/*; do head -c 1 $f && echo opened; done; dd if=/dev/zero of=/v/mem count=0 2>&1"
    _, lines = await host.shell(script, mounts=[bind(tmp_path, "/v")])
    assert "opened" not in lines
    assert lines
    assert all("Operation not permitted" in line for line in lines), lines


async def test_a_set_user_id_program_of_a_volume_gives_no_rights(host: RuntimeHost, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    shutil.copy("/bin/busybox", tmp_path / "busybox")
    (tmp_path / "busybox").chmod(0o4755)
    # The machine's pytest directories are closed to others; inside, only the mount counts.
    for applet in ("id -u", "cat /proc/self/status"):
        code, lines = await host.shell(f"/v/busybox {applet}", mounts=[bind(tmp_path, "/v")], user="web")
        assert code == 0
        if applet == "id -u":
            assert lines == ["1000"]
        else:
            assert [int(line.split()[1], 16) for line in lines if line.startswith(("CapEff", "CapPrm"))] == [0, 0]


# Exhaustion


async def test_output_without_end_fills_neither_disk_nor_memory(host: RuntimeHost) -> None:
    assert host.daemon is not None

    def resident() -> int:
        assert host.daemon is not None
        return int(Path(f"/proc/{host.daemon.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    await host.start("flood", "sh", "-c", "yes | head -c 20971520; head -c 62914560 /dev/zero; echo; echo end")
    await host.wait("flood")
    kept = sum(file.stat().st_size for file in (host.paths.runtime / "containers/flood/log").iterdir())
    assert 10 * MIB < kept < 40 * MIB
    assert resident() - before < 64 * MIB
    assert (await host.records("flood", tail=1))[0].data == b"end"


async def test_files_without_end_in_memory_count_against_the_memory_limit(host: RuntimeHost) -> None:
    script = "cd /dev/shm; i=0; while :; do mkdir $i $i/{a,b,c,d,e,f,g,h}; i=$((i+1)); done"
    await host.start("inodes", "sh", "-c", script, limits=types.Resources(memory_bytes=16 * MIB))
    ended = await host.wait("inodes")
    assert (ended.exit_code, ended.oom_killed) == (137, True)
