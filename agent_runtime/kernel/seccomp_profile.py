"""Which system calls a container may make: the default filter, as data. Pure.

Deny by default (EPERM). At most what Docker's default profile allows; stricter in that only the machine's native
system call table is open (no 32-bit and x32 calls, an attack surface hardly any image needs) and that calls newer
than the library knows answer ENOSYS, so that C libraries fall back instead of failing.
"""

from dataclasses import dataclass


def _words(text: str) -> list[str]:
    return text.split()


ALWAYS = _words("""
accept accept4 access adjtimex alarm bind brk capget capset chdir chmod chown clock_adjtime clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchown
fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
futex_waitv futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid
getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit
getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get
ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen
listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create memfd_secret mincore mkdir
mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep
newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 ptrace
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages
removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid
setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid
setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink
symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev
cachestat fchmodat2 futex_requeue futex_wait futex_wake getxattrat listmount listxattrat map_shadow_stack mseal
removexattrat setxattrat statmount uretprobe
""")
"""Open to every container, with any arguments."""

NATIVE = {"x86_64": ["arch_prctl", "modify_ldt"], "aarch64": []}

WITH_CAPABILITY: dict[str, list[str]] = {
    "CAP_DAC_READ_SEARCH": ["open_by_handle_at"],
    "CAP_SYS_ADMIN": _words("""
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare
    """),
    "CAP_SYS_BOOT": ["reboot"],
    "CAP_SYS_CHROOT": ["chroot"],
    "CAP_SYS_MODULE": ["delete_module", "init_module", "finit_module"],
    "CAP_SYS_PACCT": ["acct"],
    "CAP_SYS_PTRACE": ["kcmp", "pidfd_getfd", "process_madvise"],
    "CAP_SYS_RAWIO": ["iopl", "ioperm"],
    "CAP_SYS_TIME": ["settimeofday", "stime", "clock_settime"],
    "CAP_SYS_TTY_CONFIG": ["vhangup"],
    "CAP_SYS_NICE": ["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"],
    "CAP_SYSLOG": ["syslog"],
    "CAP_BPF": ["bpf"],
    "CAP_PERFMON": ["perf_event_open"],
}
"""Opened by a capability that is not in the default set, or is and may be dropped."""

SOCKET_FAMILIES = (*range(12), *range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))
"""Address families a socket may have: not DECnet, Ax.25's relatives, AF_ALG (38) and AF_VSOCK (40)."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

CLONE_NAMESPACES = 0x7E020000
"""Flags that make clone create a namespace."""

ENOSYS, EPERM = 38, 1


@dataclass(frozen=True)
class Rule:
    """Allow `call` when its argument number `argument`, masked with `mask`, equals `value`."""

    call: str
    argument: int
    mask: int
    value: int


@dataclass(frozen=True)
class Profile:
    """What to allow plainly, conditionally, and what to answer with ENOSYS; all else is EPERM."""

    allow: tuple[str, ...]
    rules: tuple[Rule, ...]
    not_implemented: tuple[str, ...]


_ALL_BITS = 0xFFFFFFFF


def profile(capabilities: frozenset[str], machine: str) -> Profile:
    """Return the filter for a container with these capabilities on this architecture (`x86_64`, `aarch64`)."""
    allow = {*ALWAYS, *NATIVE.get(machine, [])}
    for capability in sorted(capabilities):
        allow.update(WITH_CAPABILITY.get(capability, []))
    rules = [Rule("personality", 0, _ALL_BITS, value) for value in PERSONALITIES]
    rules += [Rule("socket", 0, _ALL_BITS, family) for family in SOCKET_FAMILIES]
    not_implemented: tuple[str, ...] = ()
    if "clone" not in allow:
        rules.append(Rule("clone", 0, CLONE_NAMESPACES, 0))
        # Its flags are behind a pointer no filter can follow; C libraries fall back to clone.
        not_implemented = ("clone3",)
    return Profile(tuple(sorted(allow)), tuple(rules), not_implemented)
