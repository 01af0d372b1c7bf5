"""System call numbers and flag values, as the kernel's headers name them.

Only what this package calls. Numbers above 423 are the same on every architecture. Standard library only: the
spawner imports it without site-packages.
"""

import os

_X86_64 = {
    "read": 0, "write": 1, "close": 3, "rt_sigaction": 13, "ioctl": 16, "socket": 41, "execve": 59,
    "chdir": 80, "fchdir": 81, "syncfs": 306,
    "umask": 95, "setsid": 112, "setgroups": 116, "setresuid": 117, "setresgid": 119, "capset": 126,
    "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166, "sethostname": 170, "openat": 257,
    "mkdirat": 258, "mknodat": 259, "symlinkat": 266, "unshare": 272, "dup3": 292, "prlimit64": 302, "setns": 308,
    "seccomp": 317, "bpf": 321, "exit_group": 231, "rt_sigprocmask": 14, "fcntl": 72, "fchownat": 260, "chroot": 161,
    "setdomainname": 171, "personality": 135, "ioprio_set": 251, "sched_setattr": 314, "keyctl": 250,
    "inotify_init1": 294, "inotify_add_watch": 254, "inotify_rm_watch": 255,
}  # fmt: skip
_AARCH64 = {
    "read": 63, "write": 64, "close": 57, "rt_sigaction": 134, "ioctl": 29, "socket": 198, "execve": 221,
    "chdir": 49, "fchdir": 50, "umask": 166, "syncfs": 267,
    "setsid": 157, "setgroups": 159, "setresuid": 147, "setresgid": 149, "capset": 91,
    "pivot_root": 41, "prctl": 167, "mount": 40, "umount2": 39, "sethostname": 161, "openat": 56,
    "mkdirat": 34, "mknodat": 33, "symlinkat": 36, "unshare": 97, "dup3": 24, "prlimit64": 261, "setns": 268,
    "seccomp": 277, "bpf": 280, "exit_group": 94, "rt_sigprocmask": 135, "fcntl": 25, "fchownat": 54, "chroot": 51,
    "setdomainname": 162, "personality": 92, "ioprio_set": 30, "sched_setattr": 274, "keyctl": 219,
    "inotify_init1": 26, "inotify_add_watch": 27, "inotify_rm_watch": 28,
}  # fmt: skip
_EVERYWHERE = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "pidfd_open": 434, "pidfd_getfd": 438, "clone3": 435, "close_range": 436, "openat2": 437,
    "faccessat2": 439, "mount_setattr": 442,
}  # fmt: skip

ARCHITECTURE = os.uname().machine
SYS: dict[str, int] = {**(_AARCH64 if ARCHITECTURE == "aarch64" else _X86_64), **_EVERYWHERE}
"""Number of each system call on this machine."""

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

IN_MODIFY = 0x00000002
IN_Q_OVERFLOW = 0x00004000

KEYCTL_JOIN_SESSION_KEYRING = 1

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REC = 0x4000
MS_MOVE = 0x2000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_ATIME = 0x70
"""The bits of which one of the next two may be set."""
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_KEEPCAPS = 8
LINUX_CAPABILITY_VERSION_3 = 0x20080522

SECCOMP_SET_MODE_FILTER = 1
CLOSE_RANGE_CLOEXEC = 4
SECCOMP_FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}  # fmt: skip
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
F_DUPFD_CLOEXEC = 1030
SIOCSIFFLAGS = 0x8914
TIOCSCTTY = 0x540E
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCSWINSZ = 0x5414

RLIMIT_NUMBERS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
