"""A real image registry for a test: Debian's docker-registry as a process of its own, on loopback."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY_SECONDS = 20.0
_CONFIG = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
"""


@dataclass(frozen=True)
class LocalRegistry:
    """`host` is what references begin with, `url` what tools push to, `storage` where its files lie."""

    host: str
    url: str
    storage: Path


@contextmanager
def docker_registry() -> Iterator[LocalRegistry]:
    """Run a registry on a free port until the block ends, then remove all it kept."""
    binary = shutil.which("docker-registry")
    assert binary is not None, "`apt-get install docker-registry` brings the registry these tests need"
    with tempfile.TemporaryDirectory(prefix="pyswarm-registry-") as folder:
        storage, config = Path(folder) / "storage", Path(folder) / "config.yml"
        port = _free_port()
        config.write_text(_CONFIG.format(storage=storage, port=port))
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([binary, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(process, port, Path(folder) / "log")
            yield LocalRegistry(f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", storage)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, f"the registry ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"the registry does not answer:\n{log.read_text()}"
            time.sleep(0.02)
