"""`pyswarm-oci` as a program, with a root and bundles of its own under one folder; leaves nothing behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("pyswarm-oci")
_SECONDS = 60.0
Config = dict[str, Any]


class OciCommand:
    """One `--root`, and bundles whose rootfs is `layer`. `edit` changes what `pyswarm-oci spec` wrote."""

    def __init__(
        self,
        folder: Path,
        layer: Path,
        *,
        prefix: Sequence[str] = (),
        spec: Sequence[str] = (),
        cgroup: str | None = None,
    ) -> None:
        """`prefix` runs the command, `spec` are more flags of its `spec`, `cgroup` is the path of every container's."""
        self.root = folder / "state"
        self._prefix = prefix
        self._spec = spec
        self._cgroup = cgroup
        self.folder = folder
        self.layer = layer

    def bundle(self, name: str, *args: str, edit: Callable[[Config], object] | None = None) -> Path:
        folder = self.folder / f"bundle-{name}"
        folder.mkdir()
        folder.chmod(0o777)
        self("spec", *self._spec, "--bundle", str(folder))
        config = json.loads((folder / "config.json").read_text())
        config["process"]["terminal"] = False
        config["process"]["args"] = list(args)
        config["root"]["path"] = str(self.layer)
        own = f"/pyswarm-oci-test-{os.getpid()}/{name}"
        config["linux"]["cgroupsPath"] = own if self._cgroup is None else self._cgroup
        if edit is not None:
            edit(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def attempt(self, *words: str, root: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, whatever that is; on our own root unless told otherwise."""
        command = [*self._prefix, str(PROGRAM), *(("--root", str(self.root)) if root else ()), *words]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run(command, text=True, timeout=_SECONDS, check=False, **options)

    def __call__(self, *words: str, **options: Any) -> str:
        """Run a command that must succeed; returns what it printed."""
        done = self.attempt(*words, **options)
        assert done.returncode == 0, f"{words}: {done.returncode}: {done.stderr}"
        return str(done.stdout or "")

    def run(
        self, name: str, *args: str, edit: Callable[[Config], object] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a container of a new bundle to its end."""
        return self.attempt("run", "--bundle", str(self.bundle(name, *args, edit=edit)), name)

    def output(self, name: str, script: str, edit: Callable[[Config], object] | None = None) -> str:
        """Return what a shell script prints in a container of a new bundle; it must succeed."""
        done = self.run(name, "/bin/sh", "-ec", script, edit=edit)
        assert done.returncode == 0, f"{done.returncode}: {done.stdout} {done.stderr}"
        return done.stdout

    def create(self, name: str, *args: str, edit: Callable[[Config], object] | None = None) -> str:
        """Create a container of a new bundle; its output goes nowhere."""
        bundle = self.bundle(name, *args, edit=edit)
        self("create", "--bundle", str(bundle), name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return name

    def start(self, name: str, *args: str, edit: Callable[[Config], object] | None = None) -> str:
        self.create(name, *args, edit=edit)
        self("start", name)
        return name

    def state(self, name: str) -> Config:
        found: Config = json.loads(self("state", name))
        return found


@contextmanager
def oci_command(folder: Path, layer: Path) -> Iterator[OciCommand]:
    """Yield a command line; afterwards delete its containers and check that nothing is left."""
    command = OciCommand(folder, layer)
    try:
        yield command
    finally:
        for name in command("list", "--quiet").split():
            command("delete", "--force", name)
        remove_cgroups(f"pyswarm-oci-test-{os.getpid()}")
    assert {path.name for path in command.root.glob("*")} <= {".filters", ".lock"}


def remove_cgroups(parent: str) -> None:
    """Remove an empty parent in every hierarchy; raises OSError when a container has left something."""
    for top in Path("/sys/fs/cgroup").iterdir():
        if (top / parent).is_dir():
            (top / parent).rmdir()
