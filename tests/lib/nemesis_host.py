"""What a nemesis can do to one manager's host in the lab: its process, its network, its disk, its clock.

The host is namespaces on this machine, and everything here stays inside them: packet filters in its network namespace,
the disk a loop mount in its mount namespace, the clock that of libfaketime in its processes. All of it ends with the
host's first process; the disk's image lies in the lab's directory, which the lab removes.
"""

import os
import signal
import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from pyswarm.deploy.lab.machine import LabHost
from pyswarm.deploy.lab.process import ProcessHandle

FAKETIME_LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Of the Debian package libfaketime; the variant for programs with threads."""

DISK_BYTES = 192 * 1024 * 1024
DAEMON = b"pyswarm.manager.main"


class NemesisHost:
    def __init__(self, host: LabHost, directory: Path) -> None:
        self.host = host
        self._directory = directory
        self._clock = directory / f"{host.name}.clock"
        self._ballast = host.state / "var/lib/pyswarm/manager/ballast"
        self._shift_seconds = 0.0

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def socket(self) -> Path:
        return self.host.manager_socket

    # -- before the manager runs

    def prepare_clock(self) -> None:
        """Have every process of the host take the time from a file. To be called before the boot."""
        self.set_clock(0.0)
        self.host.extra_environment |= {
            "LD_PRELOAD": str(FAKETIME_LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            # The file is read again at most a second after a jump: at every call, it took a fifth of a manager's time.
            "FAKETIME_CACHE_DURATION": "1",
            # A jump of the wall clock leaves the monotonic clock alone, on a real machine too.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def mount_disk(self) -> None:
        """Put a file system of its own under the manager's files. To be called between boot and join."""
        image = self._directory / f"{self.name}.img"
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        self._run("mkfs.ext4", "-q", "-m", "0", str(image))
        target = self._ballast.parent
        self.host.run("mkdir", "-p", str(target))
        self.host.run("mount", "-o", "loop", str(image), str(target))
        self.host.run("rmdir", str(target / "lost+found"))

    # -- the process

    def manager(self) -> ProcessHandle | None:
        """Return the manager's process as this machine sees it; None while there is none."""
        assert self.host.init is not None
        for pid in _descendants(self.host.init.pid):
            try:
                if DAEMON in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return ProcessHandle.of(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
        return None

    def signal(self, number: signal.Signals) -> ProcessHandle | None:
        """Send a signal to the manager, and return the process it went to, if any."""
        process = self.manager()
        return process if process is not None and process.send(number) else None

    # -- the network

    def drop_from(self, addresses: Collection[str]) -> None:
        """Lose every packet that comes from these addresses, and only those; none to hear all again."""
        assert self.host.init is not None
        rules = "table ip nemesis\ndelete table ip nemesis\n"
        if addresses:
            rules += f"""table ip nemesis {{
                chain input {{
                    type filter hook input priority 0; policy accept;
                    ip saddr {{ {", ".join(sorted(addresses))} }} drop
                }}
            }}\n"""
        self._run("nsenter", "--target", str(self.host.init.pid), "--net", "nft", "-f", "-", input=rules)

    # -- the disk

    def fill_disk(self) -> None:
        """Take every free byte."""
        assert self.host.init is not None
        ballast = self._seen_from_here(self._ballast)
        with ballast.open("ab") as file:
            for size in (1 << 24, 1 << 20, 1 << 16, 1 << 12):
                while True:
                    there = os.fstat(file.fileno()).st_size
                    try:
                        os.posix_fallocate(file.fileno(), there, size)
                    except OSError:
                        break  # full to within `size`

    def free_disk(self) -> None:
        self._seen_from_here(self._ballast).unlink(missing_ok=True)

    # -- the clock

    def set_clock(self, shift_seconds: float) -> None:
        """Have the host's wall clock differ from the machine's by this much, at once."""
        aside = self._clock.with_suffix(".new")
        aside.write_text(f"{shift_seconds:+.3f}\n")
        aside.rename(self._clock)
        self._shift_seconds = shift_seconds

    def jump_clock(self, seconds: float) -> None:
        self.set_clock(self._shift_seconds + seconds)

    def clock_error(self) -> float:
        """Return by how many seconds a process of the host, asked now, sees another time than this one."""
        seen = float(self.host.run("date", "+%s.%N").stdout)
        return seen - time.time()

    def _seen_from_here(self, path: Path) -> Path:
        assert self.host.init is not None
        return Path(f"/proc/{self.host.init.pid}/root") / path.relative_to("/")

    @staticmethod
    def _run(*command: str, input: str | None = None) -> None:
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"`{' '.join(command)}` exited with {done.returncode}: {done.stderr}")


def _descendants(pid: int) -> list[int]:
    found, new = [], [pid]
    while new:
        parent = new.pop()
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                below = [int(child) for child in children.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found += below
            new += below
    return found
