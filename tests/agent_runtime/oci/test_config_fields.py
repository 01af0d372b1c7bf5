"""What a config.json asks for is so in the container: field by field, seen from inside, in a real kernel."""

import array
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from lib.oci_command import Config, OciCommand

pytestmark = pytest.mark.kernel


def test_the_user_groups_umask_and_environment(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["process"]["user"] = {"uid": 12, "gid": 34, "additionalGids": [56, 78], "umask": 0o77}
        config["process"]["env"].append("WORD=spoken")
        config["process"]["cwd"] = "/made/for/it"

    out = oci.output("a", "id -u; id -g; id -G; umask; echo $WORD; pwd", edit)
    assert out.split("\n")[:-1] == ["12", "34", "34 56 78", "0077", "spoken", "/made/for/it"]


def _status(out: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in out.splitlines())}


def test_the_five_capability_sets_of_a_user(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["process"]["user"] = {"uid": 12, "gid": 12}
        config["process"]["capabilities"] = {
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_NO_SUCH"],
            "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_KILL"], "effective": ["CAP_CHOWN"],
            "ambient": ["CAP_KILL"],
        }  # fmt: skip

    done = oci.run("a", "/bin/cat", "/proc/self/status", edit=edit)
    found = _status(done.stdout)
    kill, chown, setuid = 1 << 5, 1 << 0, 1 << 7
    assert int(found["CapBnd"], 16) == kill | chown | setuid
    assert int(found["CapInh"], 16) == kill
    # execve leaves a user what is ambient.
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [kill, kill, kill]
    assert "warning: config.json: process.capabilities: the capability CAP_NO_SUCH" in done.stderr


def test_limits_priorities_and_no_new_privileges(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
        config["process"]["oomScoreAdj"] = 123
        config["process"]["noNewPrivileges"] = True
        config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
        config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
        config["linux"]["personality"] = {"domain": "LINUX32"}

    script = (
        "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status;"
        " cut -d' ' -f19 /proc/self/stat; uname -m"
    )
    out = oci.output("a", script, edit).split("\n")
    assert out[:5] == ["100", "200", "123", "NoNewPrivs:\t1", "5"]
    assert out[5] in ("i686", "armv8l")


def test_host_and_domain_names_and_sysctls(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["hostname"], config["domainname"] = "ship", "sea"
        config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096", "fs.mqueue.msg_max": "7"}

    names = "kernel/hostname kernel/domainname net/ipv4/ip_forward kernel/shmmax fs/mqueue/msg_max"
    out = oci.output("a", f"cd /proc/sys; cat {names}", edit)
    assert out.split() == ["ship", "sea", "1", "4096", "7"]


def test_new_namespaces_are_new_and_the_others_ours(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        kinds = ("mount", "ipc", "cgroup", "time")
        config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
        config["hostname"] = ""
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "sysfs"]

    script = "for n in mnt ipc cgroup time uts net pid; do readlink /proc/self/ns/$n; done; cut -d. -f1 /proc/uptime"
    *inside, uptime = oci.output("a", script, edit).split()
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "ipc", "cgroup", "time", "uts", "net", "pid")]
    assert [a == b for a, b in zip(inside, ours, strict=True)] == [False] * 4 + [True] * 3
    assert int(uptime) >= 1_000_000


def test_namespaces_are_joined_by_path(oci: OciCommand) -> None:
    oci.start("a", "/bin/sleep", "1000")
    pid = oci.state("a")["pid"]
    kinds = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}

    def edit(config: Config) -> None:
        joined = [{"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in kinds.items()]
        config["linux"]["namespaces"] = [*joined, {"type": "mount"}]
        config["hostname"] = ""

    inside = oci.output(
        "b", "for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done; ps | grep -c sleep", edit
    )
    theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt")]
    assert inside.split()[:4] == theirs[:4]
    assert inside.split()[4] != theirs[4]
    assert int(inside.split()[5]) >= 1


def test_a_namespace_of_the_wrong_type_is_refused(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["linux"]["namespaces"] = [
            {"type": "mount"},
            {"type": "uts"},
            {"type": "ipc", "path": "/proc/self/ns/net"},
        ]

    done = oci.run("a", "/bin/true", edit=edit)
    assert "config.json: linux.namespaces[2].path: /proc/self/ns/net is no ipc namespace" in done.stderr


def _with_user_namespace(config: Config) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 1000}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 200_000, "size": 1000}]


def test_a_user_namespace_maps_ids_and_has_devices_and_a_proc_of_its_own(oci: OciCommand, tmp_path: Path) -> None:
    def edit(config: Config) -> None:
        _with_user_namespace(config)
        config["root"]["readonly"] = False
        config["process"]["user"] = {"uid": 5, "gid": 6}

    script = "id -u; cat /proc/self/uid_map /proc/self/gid_map; echo gone > /dev/null; head -c 1 /dev/zero | wc -c"
    out = oci.output("a", script, edit)
    assert out.split() == ["5", "0", "100000", "1000", "0", "200000", "1000", "1"]


def test_an_id_mapped_mount_shows_files_with_the_containers_ids(oci: OciCommand, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("x")

    def edit(config: Config) -> None:
        mappings = [{"containerID": 0, "hostID": 5000, "size": 10}]
        config["mounts"].append({
            "destination": "/tmp", "source": str(volume), "options": ["bind", "idmap"], "uidMappings": mappings,
            "gidMappings": mappings,
        })  # fmt: skip

    assert oci.output("a", "stat -c %u:%g /tmp/file", edit) == "5000:5000\n"


def test_options_of_mounts(oci: OciCommand, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()

    def edit(config: Config) -> None:
        tmpfs = ["nosuid", "nodev", "noexec", "noatime", "size=64k", "mode=0700"]
        config["mounts"] += [
            {"destination": "/tmp/t", "type": "tmpfs", "source": "tmpfs", "options": tmpfs},
            {"destination": "/tmp/t/deeper", "source": str(tmp_path), "options": ["rbind", "ro", "rslave"]},
            {"destination": "/tmp/t/file", "source": "/etc/hostname", "options": ["bind", "ro", "nodev"]},
            {"destination": "/tmp/t", "options": ["remount", "ro"]},
        ]  # fmt: skip
        config["mounts"].insert(0, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})

    out = oci.output(
        "a", "grep /tmp/t /proc/self/mountinfo; ls /tmp/t; cat /tmp/t/file; touch /tmp/t/x || echo refused", edit
    )
    lines = out.splitlines()
    shown = {line.split()[4]: line for line in lines if " - " in line}
    assert shown["/tmp/t"].split()[5] == "ro,nosuid,nodev,noexec,noatime"
    assert "size=64k,mode=700" in shown["/tmp/t"]
    assert shown["/tmp/t/deeper"].split()[5].startswith("ro")
    assert shown["/tmp/t/file"].split()[5].startswith("ro,nodev")
    assert "deeper" in lines
    assert "file" in lines
    assert Path("/etc/hostname").read_text().strip() in lines
    assert lines[-1] == "refused"


def test_a_tmpfs_can_begin_with_what_the_rootfs_has_there(oci: OciCommand, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    shutil.copytree(oci.layer, rootfs, symlinks=True)
    place = rootfs / "var/data"
    (place / "inner").mkdir(parents=True)
    (place / "inner/file").write_text("content")
    os.chown(place / "inner/file", 7, 8)
    (place / "inner/file").chmod(0o4755)
    (place / "link").symlink_to("/etc/shadow")
    os.mkfifo(place / "fifo", 0o640)
    place.chmod(0o2711)
    os.utime(place / "inner/file", (1, 2))
    # A link in the way leads to a place in the rootfs, never to one of the machine.
    (rootfs / "data").symlink_to("/var/data")

    def edit(config: Config) -> None:
        config["root"]["path"] = str(rootfs)
        for path, more in (("/data", ["ro"]), ("/missing/place", []), ("/var/data/inner", ["mode=0700"])):
            options = ["nosuid", "size=1m", "tmpcopyup", *more]
            config["mounts"].append({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options})

    out = oci.output(
        "a",
        "cd /var/data; stat -c '%n %a %u:%g %F' . inner/file link fifo; cat inner/file; readlink link;"
        "stat -c %Y inner/file;"
        "touch x || echo refused; stat -c %a inner; ls /missing/place; touch inner/x",
        edit,
    ).splitlines()
    assert out[:5] == [
        ". 2711 0:0 directory", "inner/file 4755 7:8 regular file", "link 777 0:0 symbolic link", "fifo 640 0:0 fifo",
        "content/etc/shadow",
    ]  # fmt: skip
    assert out[5:] == ["2", "refused", "700"]
    assert not (place / "x").exists()
    assert not (place / "inner/x").exists()


@pytest.mark.parametrize(("propagation", "shown"), [
    ("", set()), ("private", set()), ("shared", {"shared"}), ("unbindable", {"unbindable"}),
])  # fmt: skip
def test_the_propagation_of_the_rootfs(oci: OciCommand, propagation: str, shown: set[str]) -> None:
    out = oci.output(
        "a", "grep ' / / \\| / ' /proc/self/mountinfo", lambda c: c["linux"].update(rootfsPropagation=propagation)
    )
    fields = next(line.split() for line in out.splitlines() if line.split()[4] == "/")
    assert {each.partition(":")[0] for each in fields[6 : fields.index("-")]} == shown


def test_paths_are_hidden_and_protected_and_the_root_read_only(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["linux"]["maskedPaths"] = ["/etc/passwd", "/home", "/no/such"]
        config["linux"]["readonlyPaths"] = ["/dev/shm", "/no/such"]

    script = "cat /etc/passwd; ls -A /home; touch /dev/shm/x 2>&1 || true; touch /x 2>&1 || true; echo end"
    assert oci.output("a", script, edit).split("\n")[:-1] == [
        "touch: /dev/shm/x: Read-only file system", "touch: /x: Read-only file system", "end",
    ]  # fmt: skip


def test_device_nodes_and_rules(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["linux"]["devices"] = [
            {"path": "/dev/mine/again", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 4},
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/queue", "type": "p", "fileMode": 0o600},
        ]

    script = (
        "stat -c '%F %a %u %g %t %T' /dev/mine/again; head -c 1 /dev/mine/again | wc -c; test -p /dev/queue;"
        " head -c 1 /dev/kmsg 2>&1"
    )
    done = oci.run("a", "/bin/sh", "-c", script, edit=edit)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["character special file 640 0 4 1 5", "1"]
    assert "Operation not permitted" in lines[2]


def test_resources_are_the_cgroups(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["linux"]["resources"] |= {
            "memory": {"limit": 64 << 20, "swap": 64 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"}, "pids": {"limit": 33},
        }  # fmt: skip

    script = (
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes cpu/cpu.shares"
        " cpu/cpu.cfs_quota_us cpuset/cpuset.cpus pids/pids.max; touch pids/x 2>/dev/null || echo read-only"
    )
    found = oci.output("a", script, edit).split()
    assert found == [str(64 << 20), str(32 << 20), "512", "50000", "0", "33", "read-only"]


def test_a_resource_that_this_machine_lacks_is_refused(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["linux"]["resources"]["hugepageLimits"] = [{"pageSize": "3MB", "limit": 1}]

    assert "config.json: linux.resources" in oci.run("a", "/bin/true", edit=edit).stderr


def test_seccomp_compares_arguments_and_answers_with_the_errno_asked_for(oci: OciCommand) -> None:
    usr1 = {"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}

    def edit(config: Config) -> None:
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [usr1]},
                {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
            ],
        }  # fmt: skip

    script = "mkdir /dev/shm/x 2>&1; kill -10 $$ 2>&1; trap 'echo caught' USR2; kill -12 $$; hostname x; echo $?"
    done = oci.run("a", "/bin/sh", "-c", script, edit=edit)
    lines = done.stdout.splitlines()
    assert done.stderr == "Bad system call\n"
    assert lines[0].endswith("No space left on device")
    assert "not permitted" in lines[1]
    assert "caught" in lines
    assert lines[-1] == str(128 + 31)


def test_the_listener_of_a_seccomp_filter_is_handed_over(oci: OciCommand, tmp_path: Path) -> None:
    path = tmp_path / "agent"

    def edit(config: Config) -> None:
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path), "listenerMetadata": "mine",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        }  # fmt: skip

    assert "linux.seccomp.listenerPath: nobody listens" in oci.run("b", "/bin/true", edit=edit).stderr
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        got: list[Any] = []
        thread = threading.Thread(target=_answer_with_errno, args=(server, 99, got))
        thread.start()
        out = oci.run("a", "/bin/sh", "-c", "mkdir /dev/shm/x 2>&1", edit=edit).stdout
        thread.join(20)
    assert "Cannot assign requested address" in out  # errno 99
    assert got[0]["fds"] == ["seccompFd"]
    assert (got[0]["metadata"], got[0]["state"]["id"]) == ("mine", "a")


def _answer_with_errno(server: socket.socket, number: int, got: list[Any]) -> None:
    """Take the listener and refuse the first call that comes."""
    connection, _ = server.accept()
    with connection:
        data, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
    got.append(json.loads(data))
    listener = descriptors[0]
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    assert poll.poll(20_000)
    request = array.array("B", bytes(80))
    fcntl.ioctl(listener, 0xC0502100, request)  # SECCOMP_IOCTL_NOTIF_RECV
    (cookie,) = struct.unpack_from("=Q", request.tobytes())
    response = array.array("B", struct.pack("=QqiI", cookie, 0, -number, 0))
    fcntl.ioctl(listener, 0xC0182101, response)  # SECCOMP_IOCTL_NOTIF_SEND
    os.close(listener)


def test_hooks_run_in_their_order_and_places(oci: OciCommand, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()

    def hook(name: str) -> list[dict[str, Any]]:
        script = f'state=$(cat); echo "{name} $(readlink /proc/self/ns/uts) $WORD $state" >> {log}'
        return [
            {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["WORD=w", "PATH=/bin:/usr/bin"], "timeout": 20}
        ]

    names = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

    def edit(config: Config) -> None:
        config["hooks"] = {name: hook(name) for name in names}
        # The hook of the container's own runs below its root.
        config["mounts"].append(
            {"destination": str(tmp_path), "type": "bind", "source": str(tmp_path), "options": ["bind"]}
        )
        config["root"]["readonly"] = False

    oci.output("a", "true", edit)
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == list(names)
    ours = os.readlink("/proc/self/ns/uts")
    assert [line[1] == ours for line in lines] == [True, True, False, False, True, True]
    statuses = [json.loads(line[3])["status"] for line in lines]
    assert statuses == ["created", "creating", "creating", "created", "running", "stopped"]
    assert {line[2] for line in lines} == {"w"}


def test_a_failing_hook_fails_the_create_with_its_words(oci: OciCommand) -> None:
    def edit(config: Config) -> None:
        config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo sorry; exit 3"]}]}

    done = oci.run("a", "/bin/true", edit=edit)
    assert "hooks.createRuntime[0]: /bin/sh ended with 3: sorry" in done.stderr
    assert not (oci.root / "a").exists()


def test_a_terminal_is_handed_over_with_its_size(oci: OciCommand, tmp_path: Path) -> None:
    def edit(config: Config) -> None:
        config["process"]["terminal"] = True
        config["process"]["consoleSize"] = {"height": 33, "width": 77}

    bundle = oci.bundle(
        "a", "/bin/sh", "-c", "tty; stty size; echo to-console > /dev/console; read line; echo got $line", edit=edit
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "console"))
        server.listen()
        flags = ["--bundle", str(bundle), "--console-socket", str(tmp_path / "console")]
        oci("create", *flags, "a", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        connection, _ = server.accept()
        _, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
        connection.close()
    oci("start", "a")
    os.write(descriptors[0], b"hello\n")
    said = b""
    while b"got hello" not in said:
        said += os.read(descriptors[0], 1000)
    os.close(descriptors[0])
    assert b"/dev/pts/0\r\n33 77\r\nto-console" in said


def test_a_terminal_needs_somebody_to_take_it(oci: OciCommand) -> None:
    bundle = oci.bundle("a", "/bin/sh", edit=lambda config: config["process"].update(terminal=True))
    assert "--console-socket" in oci.attempt("create", "--bundle", str(bundle), "a").stderr


def test_annotations_are_in_the_state(oci: OciCommand) -> None:
    oci.create("a", "/bin/true", edit=lambda config: config.update(annotations={"color": "blue"}))
    assert oci.state("a")["annotations"] == {"color": "blue"}


def test_a_limit_that_may_not_be_raised_is_told_with_its_field(oci: OciCommand) -> None:
    huge = {"type": "RLIMIT_NOFILE", "soft": 2**40, "hard": 2**40}
    done = oci.run("a", "/bin/true", edit=lambda config: config["process"].update(rlimits=[huge]))
    assert "config.json: process.rlimits: cannot set RLIMIT_NOFILE: Operation not permitted" in done.stderr
