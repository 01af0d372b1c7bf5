"""Run commands as an ordinary user of this machine, who exists for them alone and is granted subordinate ids or not.

The user, and the grant, are in files mounted over the machine's in a mount namespace of each command's own. So is a
way to the Python that runs the tests, which may lie in root's home.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

UID = 47110
FIRST_SUBID, SUBIDS = 700_000, 65_536
_NAME = "pyswarm-ordinary"
_SCRIPT = """set -e
folder=$1 cgroup=$2; shift 2
for file in passwd subuid subgid; do mount --bind $folder/$file /etc/$file; done
if [ -e $folder/root ]; then mount --bind {home} $folder/root/{inner}; mount --rbind $folder/root {top}; fi
if [ -n "$cgroup" ]; then echo 0 > $cgroup/cgroup.procs; fi
exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all -- "$@"
"""


@dataclass(frozen=True)
class OrdinaryUser:
    """`folder` is the user's own."""

    folder: Path
    _about: Path

    def prefix(self, *, cgroup: Path | None = None) -> Sequence[str]:
        """Return the words that run a command as the user, begun in a cgroup of v2."""
        return ("unshare", "--mount", "sh", str(self._about / "script"), str(self._about), str(cgroup or ""))

    def grant(self, count: int) -> None:
        """Grant so many subordinate ids; 0: none."""
        for name in ("subuid", "subgid"):
            (self._about / name).write_text(f"{_NAME}:{FIRST_SUBID}:{count}\n" if count else "")

    def own(self, path: Path) -> None:
        """Give the user a file, or a directory and everything in it."""
        for found in (path, *path.rglob("*")):
            os.chown(found, UID, UID, follow_symlinks=False)


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    # Not pytest's directory: that is for root alone.
    top = Path(tempfile.mkdtemp(prefix="pyswarm-user-"))
    top.chmod(0o755)
    try:
        about, folder = top / "about", top / "own"
        about.mkdir()
        folder.mkdir()
        user = OrdinaryUser(folder, about)
        user.own(folder)
        user.grant(SUBIDS)
        machine = Path("/etc/passwd").read_text()
        (about / "passwd").write_text(f"{machine}{_NAME}:x:{UID}:{UID}::{folder}:/bin/sh\n")
        (about / "script").write_text(_script(about))
        yield user
    finally:
        shutil.rmtree(top)


def _script(about: Path) -> str:
    """Return the script; the first directory on the way to Python that the user may not pass is replaced by a copy
    that shows nothing but the way."""
    home = Path(os.path.realpath(sys.base_prefix))
    shut = next((folder for folder in reversed(home.parents) if not folder.stat().st_mode & 0o001), None)
    if shut is None:
        return _SCRIPT.format(uid=UID, home="", inner="", top="")
    inner = home.relative_to(shut)
    (about / "root" / inner).mkdir(parents=True)
    return _SCRIPT.format(uid=UID, home=home, inner=inner, top=shut)
