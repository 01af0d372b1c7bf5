"""A root file system made of Debian's static busybox: small enough to make for every test session."""

import shutil
import subprocess
from pathlib import Path

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1000:\nlogs:x:2000:web\n"


def make_rootfs(folder: Path) -> Path:
    """Fill `folder` with busybox and its commands, a user `web` and a few directories; return it."""
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "home/web"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2("/bin/busybox", folder / "bin/busybox")
    names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        target = folder / "bin" / name
        if not target.exists():
            target.symlink_to("busybox")
    (folder / "etc/passwd").write_text(PASSWD)
    (folder / "etc/group").write_text(GROUP)
    (folder / "tmp").chmod(0o1777)
    folder.chmod(0o755)  # other users must get in
    return folder
