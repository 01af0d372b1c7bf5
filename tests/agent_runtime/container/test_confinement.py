"""What a container sees and may do, seen from inside it."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from lib.runtime_host import RuntimeHost, runtime_host

from pyswarm.proto.errors import FailedPrecondition
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import types_pb2 as types

pytestmark = [pytest.mark.kernel, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture
def host(shared_host: RuntimeHost) -> RuntimeHost:
    return shared_host


MIB = 1024 * 1024
DOCKERS_CAPABILITIES = "00000000a80425fb"


def status_field(lines: list[str], name: str) -> str:
    return next(line.split(":\t")[1].strip() for line in lines if line.startswith(f"{name}:"))


async def test_it_sees_only_its_own_processes_from_pid_one(host: RuntimeHost) -> None:
    _, lines = await host.shell("ps -o pid,args | cat")
    pids = [int(line.split()[0]) for line in lines[1:]]
    assert pids[0] == 1
    assert "sh -c ps" in lines[1]
    assert len(pids) <= 3


async def test_it_has_a_host_name_of_its_own(host: RuntimeHost) -> None:
    assert await host.run("named", "hostname", hostname="web-1") == (0, ["web-1"])
    assert await host.run("a-rather-long-id", "sh", "-c", "hostname; cat /etc/hostname") == (0, ["a-rather-lon"] * 2)


async def test_it_has_exactly_dockers_capabilities(host: RuntimeHost) -> None:
    _, lines = await host.run("status", "cat", "/proc/self/status")
    assert status_field(lines, "CapEff") == status_field(lines, "CapPrm") == DOCKERS_CAPABILITIES
    assert status_field(lines, "CapBnd") == DOCKERS_CAPABILITIES
    assert int(status_field(lines, "CapInh"), 16) == int(status_field(lines, "CapAmb"), 16) == 0
    assert (status_field(lines, "NoNewPrivs"), status_field(lines, "Seccomp")) == ("1", "2")
    assert status_field(lines, "SigIgn") == status_field(lines, "SigBlk") == "0" * 16


async def test_capabilities_can_be_added_and_dropped(host: RuntimeHost) -> None:
    _, lines = await host.shell(
        "cat /proc/self/status", capability_drop=["ALL"], capability_add=["NET_BIND_SERVICE", "cap_chown"]
    )
    assert int(status_field(lines, "CapEff"), 16) == 1 << 10 | 1 << 0
    assert int(status_field(lines, "CapBnd"), 16) == 1 << 10 | 1 << 0


async def test_another_user_has_its_groups_and_no_capabilities(host: RuntimeHost) -> None:
    _, lines = await host.shell("id -u; id -g; id -G; echo $HOME; cat /proc/self/status", user="web")
    assert lines[:4] == ["1000", "1000", "1000 2000", "/home/web"]
    assert int(status_field(lines, "CapEff"), 16) == 0
    assert await host.shell("id -u; id -g; id -G; echo $HOME", user="4321:99") == (0, ["4321", "99", "99", "/"])


async def test_a_user_without_rights_can_write_to_its_own_standard_output_by_name(host: RuntimeHost) -> None:
    assert await host.shell("echo hello > /dev/stdout", user="web") == (0, ["hello"])


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("mount -t tmpfs none /tmp", id="mount"),
        pytest.param("mount -o remount,rw /proc/sys", id="remount"),
        pytest.param("umount /proc/sys", id="umount"),
        pytest.param("unshare -m true", id="unshare"),
        pytest.param("unshare -Ur true", id="user namespace"),
        pytest.param("nsenter -t 1 -m true", id="setns"),
        pytest.param("hostname evil", id="host name"),
        pytest.param("adjtimex -t 10000", id="clock"),
        pytest.param("dmesg", id="kernel log"),
        pytest.param("insmod /bin/busybox", id="kernel module"),
        pytest.param("swapon /bin/busybox", id="swap"),
        pytest.param("x=$(cat /proc/sys/kernel/panic); echo $x > /proc/sys/kernel/panic", id="proc sys"),
        pytest.param("echo h > /proc/sysrq-trigger", id="sysrq"),
        pytest.param("x=$(cat /sys/kernel/profiling); echo $x > /sys/kernel/profiling", id="sys"),
        pytest.param("mkdir /sys/fs/cgroup/x", id="cgroup"),
        pytest.param("mknod /tmp/vda b 254 0 && head -c 1 /tmp/vda", id="raw disk"),
        pytest.param("mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem", id="memory device"),
        pytest.param("mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg", id="kernel messages"),
        pytest.param("ip link add br0 type bridge", id="network device"),
        pytest.param("head -c 1 /proc/kcore | grep -q .", id="kcore"),
        pytest.param("test -s /proc/keys", id="keys"),
        pytest.param("ls /sys/firmware/* 2>/dev/null | grep -q .", id="firmware"),
    ],
)
async def test_it_is_refused(host: RuntimeHost, attempt: str) -> None:
    # Each attempt is harmless to the machine should it ever succeed.
    code, lines = await host.shell(attempt)
    assert code != 0, lines


async def test_it_cannot_reboot(host: RuntimeHost) -> None:
    # Even if it could, the kernel would only end its pid namespace: hence the check that it is in one.
    _, lines = await host.shell("[ $$ = 1 ] || exit; reboot -f; echo survived")
    assert "survived" in lines


async def test_refusals_leave_no_trace_on_the_machine(host: RuntimeHost) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    hostname = os.uname().nodename
    await host.shell("mount -t tmpfs none /tmp; hostname evil; mkdir /dev/shm/x; mknod /dev/x c 1 3")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert os.uname().nodename == hostname


async def test_the_machines_files_are_invisible(host: RuntimeHost) -> None:
    marker = host.root / "machine-secret"
    marker.write_text("secret")
    code, lines = await host.shell(f"ls {host.root} {marker} /work /var/lib/dpkg; find / -xdev -name machine-secret")
    assert not [line for line in lines if line.endswith("/machine-secret") and "No such file" not in line]
    assert code == 0


async def test_only_standard_streams_are_open(host: RuntimeHost) -> None:
    # The fourth is the directory that `ls` reads.
    _, lines = await host.run("fds", "ls", "/proc/self/fd")
    assert sorted(lines) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 10, 20])
async def test_a_working_directory_cannot_be_a_descriptor_of_ours(host: RuntimeHost, number: int) -> None:
    try:
        code, lines = await host.run("cwd", "pwd", dir=f"/proc/self/fd/{number}")
    except Exception as refused:  # noqa: BLE001 - any refusal is right
        assert "working directory" in str(refused) or "directory" in str(refused)  # noqa: PT017
        await host.remove("cwd")
    else:
        assert code != 0, lines


async def test_the_working_directory_is_made_and_entered(host: RuntimeHost) -> None:
    assert await host.run("cwd", "pwd", dir="/srv/some/where") == (0, ["/srv/some/where"])


async def test_an_image_cannot_put_proc_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "layer/bin").mkdir(parents=True)
    (tmp_path / "layer/elsewhere").mkdir()
    (tmp_path / "layer/proc").symlink_to("/elsewhere")
    shutil.copy("/bin/busybox", tmp_path / "layer/bin/true")
    async with runtime_host(tmp_path / "layer") as other:
        with pytest.raises(FailedPrecondition, match="/proc"):
            await other.start("link", "/bin/true")


async def test_the_memory_limit_is_enforced_and_the_kill_is_reported(host: RuntimeHost) -> None:
    # tail keeps what it reads: all of it, as there is no line's end.
    await host.start("hungry", "tail", "/dev/zero", limits=types.Resources(memory_bytes=32 * MIB))
    ended = await host.wait("hungry")
    assert (ended.exit_code, ended.oom_killed) == (137, True)
    await host.start("modest", "true", limits=types.Resources(memory_bytes=32 * MIB))
    ended = await host.wait("modest")
    assert (ended.exit_code, ended.oom_killed) == (0, False)


async def test_a_fork_bomb_is_stopped_by_the_pids_limit(host: RuntimeHost) -> None:
    script = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; echo all forked"
    await host.start("bomb", "sh", "-c", script, limits=types.Resources(pids=16))
    ended = await host.wait("bomb")
    assert ended.exit_code != 0
    lines = await host.lines("bomb")
    assert "all forked" not in lines
    assert any("fork" in line for line in lines)


async def test_without_a_limit_there_is_still_one_on_processes(host: RuntimeHost) -> None:
    await host.start("plain", "sleep", "1000")
    pids = host.cgroups.layout.v1.get("pids") or host.cgroups.layout.unified
    assert pids
    assert (pids / host.cgroup_parent / "plain/pids.max").read_text().strip() == "4096"


async def test_the_cpu_limit_is_written_down_for_the_kernel(host: RuntimeHost) -> None:
    await host.start("half", "sleep", "1000", limits=types.Resources(nano_cpus=500_000_000))
    layout = host.cgroups.layout
    if "cpu" in layout.v1:
        folder = layout.v1["cpu"] / host.cgroup_parent / "half"
        assert (folder / "cpu.cfs_quota_us").read_text().strip() == "50000"
        assert (folder / "cpu.cfs_period_us").read_text().strip() == "100000"
    else:
        assert layout.unified
        assert (layout.unified / host.cgroup_parent / "half/cpu.max").read_text().split() == ["50000", "100000"]


async def test_it_has_a_loopback_and_no_other_interface(host: RuntimeHost) -> None:
    code, lines = await host.shell("ip -o link | cut -d: -f2; ip -o addr show lo; ping -c 1 -w 5 127.0.0.1 > /dev/null")
    assert code == 0, lines
    assert "lo" in lines[0]
    assert any("127.0.0.1/8" in line for line in lines)
    assert not any("eth" in line for line in lines)


async def test_it_can_join_a_network_namespace_by_path(host: RuntimeHost) -> None:
    # A process holds the namespace open here; the network side keeps its own with a bind mount.
    holder = await asyncio.create_subprocess_exec(
        "unshare", "--net", "sh", "-c", "ip link add br7 type bridge; echo ready; exec sleep 1000", stdout=-1
    )
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"ready\n"
        _, lines = await host.shell("ip -o link", network_namespace=f"/proc/{holder.pid}/ns/net")
        assert any("br7" in line for line in lines)
    finally:
        holder.kill()
        await holder.wait()


async def test_names_are_resolved_as_asked(host: RuntimeHost) -> None:
    _, lines = await host.shell(
        "cat /etc/hosts /etc/resolv.conf",
        extra_hosts=["db:10.1.2.3", "six:fd00::1"],
        dns_servers=["9.9.9.9"],
        dns_search=["example.org"],
    )
    assert {"10.1.2.3\tdb", "fd00::1\tsix", "nameserver 9.9.9.9", "search example.org"} <= set(lines)
    assert "127.0.0.1\tlocalhost" in lines


async def test_binds_show_the_machines_directory_and_read_only_ones_cannot_be_written(
    host: RuntimeHost, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("from outside\n")
    mounts = [
        types.Mount(type=types.BIND, source=str(tmp_path), target="/data/rw"),
        types.Mount(type=types.BIND, source=str(tmp_path), target="/ro", read_only=True),
        types.Mount(type=types.BIND, source=str(tmp_path / "file"), target="/etc/one-file", read_only=True),
        types.Mount(type=types.TMPFS, target="/scratch", tmpfs_size_bytes=MIB),
    ]
    script = """
        cat /data/rw/file /etc/one-file; echo inside > /data/rw/made
        echo no > /ro/made && echo wrote; echo no > /etc/one-file && echo wrote
        dd if=/dev/zero of=/scratch/big bs=1M count=2 2>/dev/null || echo full
    """
    _, lines = await host.shell(script, mounts=mounts)
    # Of two streams nobody knows which was written to first: what the shell says of its failures may come anywhere.
    assert lines.count("from outside") == 2
    assert "wrote" not in lines
    assert "full" in lines
    assert (tmp_path / "made").read_text() == "inside\n"


async def test_a_mount_target_cannot_be_redirected_by_a_link_in_a_volume(host: RuntimeHost, tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (volume / "link").symlink_to(outside)
    mounts = [
        types.Mount(type=types.BIND, source=str(volume), target="/v"),
        types.Mount(type=types.TMPFS, target="/v/link/deeper"),
    ]
    # Resolved inside the container the link leads nowhere: the start fails, and nothing is made outside.
    with pytest.raises(FailedPrecondition, match="/v/link/deeper"):
        await host.start("linked", "true", mounts=mounts)
    assert list(outside.iterdir()) == []


async def test_a_read_only_container_writes_nowhere_but_to_what_is_mounted(host: RuntimeHost) -> None:
    script = "touch /x && echo wrote; touch /etc/x && echo wrote; echo ok > /dev/shm/x; cat /dev/shm/x"
    _, lines = await host.shell(script, read_only=True)
    assert "wrote" not in lines
    assert "ok" in lines


async def test_what_one_container_writes_no_other_sees(host: RuntimeHost) -> None:
    await host.shell("echo mine > /mark")
    assert await host.shell("cat /mark 2>/dev/null") == (1, [])
    assert not (host.layer / "mark").exists()


async def test_a_containers_root_cannot_look_into_our_processes(host: RuntimeHost) -> None:
    spawner = host.spawner_pid()
    assert host.daemon is not None
    for pid in (spawner, host.daemon.pid):
        # dumpable 0: owned by the real root, whoever runs it
        assert os.stat(f"/proc/{pid}/exe", follow_symlinks=False).st_uid == 0
    code, lines = await host.shell("for p in /proc/[0-9]*; do readlink $p/exe; done")
    assert code == 0
    assert set(lines) <= {"/bin/busybox"}


async def test_the_environment_is_the_images_with_ones_own_over_it(host: RuntimeHost) -> None:
    _, lines = await host.run("env", "env", env=["A=1", "FROM_IMAGE=no"])
    assert {"A=1", "FROM_IMAGE=no", "HOME=/root"} <= set(lines)
    assert not any(line.startswith(("PYTHON", "VIRTUAL_ENV", "LC_")) for line in lines)


async def test_a_watcher_that_came_late_still_learns_the_oom_kill(host: RuntimeHost) -> None:
    await host.start("late", "tail", "/dev/zero", limits=types.Resources(memory_bytes=16 * MIB))
    await host.wait("late")
    listed = (await host.stub.ListContainers(pb.ListContainersRequest())).containers
    assert [(c.id, c.oom_killed) for c in listed] == [("late", True)]


async def test_kernel_settings_and_limits_are_its_own(host: RuntimeHost) -> None:
    before = Path("/proc/sys/kernel/shmmni").read_text()
    code, lines = await host.shell(
        "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni; ulimit -Sn; ulimit -Hn; ulimit -Hf; "
        "grep options /etc/resolv.conf",
        sysctls={"net.core.somaxconn": "77", "kernel.shmmni": "99"},
        ulimits=[types.Ulimit(name="nofile", soft=100, hard=200), types.Ulimit(name="fsize", soft=-1, hard=-1)],
        dns_options=["ndots:2", "timeout:1"],
    )
    assert (code, lines) == (0, ["77", "99", "100", "200", "unlimited", "options ndots:2 timeout:1"])
    assert Path("/proc/sys/kernel/shmmni").read_text() == before, "the machine keeps its own"


async def test_a_kernel_setting_that_does_not_exist_is_not_passed_over(host: RuntimeHost) -> None:
    with pytest.raises(FailedPrecondition, match=r"cannot set net\.core\.no_such_thing: No such file or directory"):
        await host.start("unset", "true", sysctls={"net.core.no_such_thing": "1"})
    await host.remove("unset")
