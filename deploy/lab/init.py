"""The first process of a lab host: what systemd is on a machine, in a few lines.

Run as `python init.py NAME ROOT HOSTS_FILE` inside fresh pid, mount, network, uts and ipc namespaces. It names
the host, gives it its own /etc/hosts and a /run/pyswarm that a reboot forgets, keeps `pyswarmd` running and
reaps orphans. Standard library only, and nothing of pyswarm: it must not matter to what it hosts.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RESTART_SECONDS = 1.0
"""Pause before pyswarmd is started again, as `RestartSec=` in its systemd unit."""


def _prepare(name: str, root: Path, hosts_file: Path) -> None:
    socket.sethostname(name)
    run = root / "run/pyswarm"
    run.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=64m", "pyswarm-run", str(run)], check=True)
    subprocess.run(["mount", "--bind", str(hosts_file), "/etc/hosts"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _spawn_supervisor(root: Path) -> subprocess.Popen[bytes]:
    log = root / "var/log/pyswarm/pyswarmd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "pyswarm.worker.node", "--root", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def main(arguments: list[str]) -> None:
    """Run until killed. SIGTERM (a shutdown) ends the host and, with this process, all that runs on it."""
    name, root, hosts_file = arguments[0], Path(arguments[1]), Path(arguments[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _prepare(name, root, hosts_file)
    supervisor = _spawn_supervisor(root)
    print("ready", flush=True)
    # Whoever started us waited for that line; keep no pipe of theirs open.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    while True:
        pid, _status = os.wait()
        if pid == supervisor.pid:
            time.sleep(RESTART_SECONDS)
            supervisor = _spawn_supervisor(root)


if __name__ == "__main__":
    main(sys.argv[1:])
