"""Run a command on a kernel of its own: user-mode Linux, on this machine's file tree, with nothing but cgroup v2.

The tree is shared; what is written outside /tmp and /run is written on this machine. Boots in two seconds. The
kernel is 6.1 on one processor and slow at system calls: for what holds, never for how fast.
"""

import asyncio
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("uml_fpregs.c")
_MODULES = Path("/usr/lib/uml/modules")
_STATUS = "exit status of the command:"
_MEMORY = "768M"


@dataclass(frozen=True)
class Ran:
    status: int
    output: str


def _init(command: list[str], directory: Path) -> str:
    """Return the script that is the guest's first process."""
    (overlay,) = _MODULES.rglob("overlay.ko")
    tree = shlex.quote(str(directory))
    return f"""#!/bin/sh
export PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc; mount -t sysfs sys /sys
mkdir -p /dev/shm /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t devpts devpts /dev/pts
mkdir /dev/shm/tree; mount --bind {tree} /dev/shm/tree
for folder in /tmp /run; do mount -t tmpfs tmpfs $folder; done
mkdir -p {tree} /run/bin; mount --move /dev/shm/tree {tree} # it may lie in what has just been covered
mount -t cgroup2 none /sys/fs/cgroup
/bin/busybox insmod {overlay}
printf '#!/bin/sh\\n' > /run/bin/nft; chmod 755 /run/bin/nft # this kernel has no tables to look for leaks in
ip link set lo up
cd {tree}
{shlex.join(command)} < /dev/null 2>&1
echo "{_STATUS} $?"
/bin/busybox poweroff -f
"""


async def run(command: list[str], *, directory: Path, scratch: Path, timeout_seconds: float) -> Ran:
    """Boot, run `command` in `directory`, halt. `scratch` is looked at before /tmp and /run are covered."""
    library, script = scratch / "fpregs.so", scratch / "init"
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed: apt-get install gcc libc6-dev"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    script.write_text(_init(command, directory))
    script.chmod(0o755)
    kernel = await asyncio.create_subprocess_exec(
        "linux.uml", "rootfstype=hostfs", "rootflags=/", "rw", f"mem={_MEMORY}", f"init={script}",
        "con=null", "con0=null,fd:1", "quiet", f"uml_dir={scratch}",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(scratch), "TMPDIR": str(scratch), "LD_PRELOAD": str(library)},
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_seconds):
            said, _ = await kernel.communicate()
    finally:
        if kernel.returncode is None:
            os.killpg(kernel.pid, 9)
            await kernel.wait()
    output = said.decode(errors="replace")
    _, found, status = output.rpartition(_STATUS)
    return Ran(int(status.split()[0]) if found else -1, output)
