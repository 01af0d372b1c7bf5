"""One door to the kernel: syscalls by ctypes, cgroups, mounts, capabilities, seccomp."""
