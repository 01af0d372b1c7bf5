"""The default filter and capability sets: never wider than Docker's."""

import threading
from pathlib import Path

import pytest

from pyswarm.agent_runtime.kernel import capabilities, seccomp, seccomp_profile
from pyswarm.agent_runtime.kernel.seccomp_profile import CLONE_NAMESPACES, profile
from pyswarm.proto.errors import InvalidArgument

DANGEROUS = {
    *("mount", "umount2", "pivot_root", "setns", "unshare", "bpf", "init_module", "finit_module", "delete_module"),
    *(
        "kexec_load",
        "kexec_file_load",
        "reboot",
        "swapon",
        "swapoff",
        "keyctl",
        "add_key",
        "request_key",
        "userfaultfd",
    ),
    *("perf_event_open", "iopl", "ioperm", "settimeofday", "clock_settime", "sethostname", "open_by_handle_at"),
    *("move_mount", "fsopen", "fsmount", "open_tree", "mount_setattr", "io_uring_setup", "io_uring_enter", "syslog"),
    *("acct", "quotactl", "lookup_dcookie", "nfsservctl", "vhangup", "clone3"),
}


def test_by_default_nothing_dangerous_is_open() -> None:
    opened = profile(capabilities.DEFAULT, "x86_64")
    assert not DANGEROUS & set(opened.allow)
    assert "clone3" in opened.not_implemented
    (clone,) = [rule for rule in opened.rules if rule.call == "clone"]
    assert (clone.mask, clone.value) == (CLONE_NAMESPACES, 0)


def test_no_call_is_both_open_and_conditional() -> None:
    opened = profile(capabilities.DEFAULT, "x86_64")
    assert not {rule.call for rule in opened.rules} & set(opened.allow)


@pytest.mark.parametrize("family", [12, 38, 40])
def test_sockets_of_risky_families_stay_closed(family: int) -> None:
    assert family not in seccomp_profile.SOCKET_FAMILIES


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYSLOG", "syslog"),
    ],
)
def test_a_capability_opens_what_it_is_good_for(capability: str, call: str) -> None:
    assert call not in profile(capabilities.DEFAULT, "x86_64").allow
    assert call in profile(capabilities.DEFAULT | {capability}, "x86_64").allow


def test_a_filter_is_compiled_once_and_kept_on_disk(tmp_path: Path) -> None:
    first = seccomp.SeccompFilters(tmp_path)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(first.filter_for(capabilities.DEFAULT))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = tmp_path.iterdir()
    assert set(results) == {file.read_bytes()}
    assert len(results[0]) % 8 == 0
    assert len(results[0]) // 8 < 4096  # the kernel's limit on instructions
    # Another daemon takes it from the disk.
    assert seccomp.SeccompFilters(tmp_path).filter_for(capabilities.DEFAULT) == results[0]


def test_a_torn_filter_on_disk_is_made_again(tmp_path: Path) -> None:
    good = seccomp.SeccompFilters(tmp_path).filter_for(capabilities.DEFAULT)
    (file,) = tmp_path.iterdir()
    file.write_bytes(good[:13])
    assert seccomp.SeccompFilters(tmp_path).filter_for(capabilities.DEFAULT) == good


@pytest.mark.parametrize(
    ("add", "drop", "result"),
    [
        pytest.param([], [], capabilities.DEFAULT, id="the default"),
        pytest.param(["NET_ADMIN"], [], capabilities.DEFAULT | {"CAP_NET_ADMIN"}, id="one more"),
        pytest.param([], ["CAP_CHOWN"], capabilities.DEFAULT - {"CAP_CHOWN"}, id="one less"),
        pytest.param([], ["all"], frozenset(), id="none"),
        pytest.param(["kill"], ["ALL"], frozenset({"CAP_KILL"}), id="only one"),
        pytest.param(["ALL"], ["SYS_ADMIN"], frozenset(capabilities.NAMES) - {"CAP_SYS_ADMIN"}, id="all but one"),
    ],
)
def test_capabilities_add_up(add: list[str], drop: list[str], result: frozenset[str]) -> None:
    assert capabilities.effective(add, drop) == result
    assert capabilities.from_mask(capabilities.mask(result)) == result


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(InvalidArgument, match="FLY"):
        capabilities.effective(["FLY"], [])


def test_the_default_set_is_dockers() -> None:
    assert capabilities.mask(capabilities.DEFAULT) == 0xA80425FB
