"""The lab's image registry: Debian's docker-registry on the lab's gateway address."""

import shutil
import subprocess
import time
from pathlib import Path

from pyswarm.deploy.lab.process import ProcessHandle
from pyswarm.deploy.lab.switch import Switch
from pyswarm.deploy.lab.topology import REGISTRY_PORT

_CONFIG = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: 0.0.0.0:{port}
"""
_READY_SECONDS = 15.0


def start_registry(directory: Path, switch: Switch) -> ProcessHandle:
    """Start a registry that keeps its images in `directory` and return it once it answers.

    Raises RuntimeError naming the package to install, or the log to read.
    """
    binary = shutil.which("docker-registry")
    if binary is None:
        raise RuntimeError("docker-registry is not installed; `apt-get install docker-registry` brings it")
    storage = directory / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    config = directory / "config.yml"
    config.write_text(_CONFIG.format(storage=storage, port=REGISTRY_PORT))
    log = directory / "registry.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            switch.command(binary, "serve", str(config)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    handle = ProcessHandle.of(process.pid)
    deadline = time.monotonic() + _READY_SECONDS
    while not _answers(switch):
        if process.poll() is not None or time.monotonic() > deadline:
            handle.kill()
            raise RuntimeError(f"the lab's registry did not start; see {log}")
        time.sleep(0.05)
    return handle


def _answers(switch: Switch) -> bool:
    probe = f"import socket; socket.create_connection(('127.0.0.1', {REGISTRY_PORT}), 1)"
    return (
        subprocess.run(switch.command("python3", "-S", "-c", probe), capture_output=True, check=False).returncode == 0
    )
