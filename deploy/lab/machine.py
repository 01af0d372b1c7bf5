"""One host of a lab: boot it, run commands on it, pull its plug."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyswarm.deploy.lab import init
from pyswarm.deploy.lab.cgroups import remove_cgroup_tree
from pyswarm.deploy.lab.process import ProcessHandle, only_child
from pyswarm.deploy.lab.switch import Switch
from pyswarm.deploy.lab.topology import PREFIX_LENGTH, HostPlan, LabPlan, cgroup_parent, config_toml


@dataclass
class LabHost:
    """A host; `state` outlives power cuts as a disk does."""

    lab: LabPlan
    plan: HostPlan
    state: Path
    switch: Switch
    init: ProcessHandle | None = None
    extra_environment: dict[str, str] = field(default_factory=dict)
    """Of every process of the host, from its next boot on: what a test slips in."""

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def address(self) -> str:
        return self.plan.address

    @property
    def is_running(self) -> bool:
        return self.init is not None and self.init.is_running

    @property
    def manager_socket(self) -> Path:
        """The manager's unix socket, reached from outside through the host's own view of its files."""
        assert self.init is not None, f"host {self.name} is down"
        inside = self.state / "run/pyswarm/manager.sock"
        return Path(f"/proc/{self.init.pid}/root") / inside.relative_to("/")

    def boot(self) -> None:
        """Start the host's first process and plug its network in; does nothing when it runs already."""
        if self.is_running:
            return
        self._write_disk()
        # Its own session: closing the terminal that typed `lab up` must not take the host down.
        process = subprocess.Popen(
            [
                "unshare", "--fork", "--pid", "--mount", "--net", "--uts", "--ipc", "--mount-proc",
                "--propagation", "private", "--kill-child",
                sys.executable, init.__file__, self.name, str(self.state), str(self.state / "etc/hosts"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.state / "var/log/pyswarm/init.log").open("ab"),
            env=self.environment(),
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            process.kill()
            process.wait()
            raise RuntimeError(f"host {self.name} did not start; see {self.state / 'var/log/pyswarm/init.log'}")
        process.stdout.close()
        self.init = ProcessHandle.of(only_child(process.pid))
        try:
            self.switch.plug_in(self.name, self.init.pid, f"{self.address}/{PREFIX_LENGTH}")
        except BaseException:
            # A host without a network would pass for one that runs.
            self.kill()
            raise

    def _write_disk(self) -> None:
        for folder in ("etc/pyswarm", "var/lib/pyswarm", "var/log/pyswarm", "run/pyswarm"):
            (self.state / folder).mkdir(parents=True, exist_ok=True)
        (self.state / "etc/hosts").write_text(self.lab.hosts_file())
        (self.state / "etc/pyswarm/config.toml").write_text(config_toml(self.lab, self.plan))

    def kill(self) -> None:
        """Pull the plug: SIGKILL every process of the host at once. Its disk stays."""
        if self.init is not None:
            # The kernel kills a pid namespace with its first process, daemons and containers alike.
            self.init.kill(signal.SIGKILL)
            self.init = None
        remove_cgroup_tree(cgroup_parent(self.lab.name, self.name))

    def environment(self) -> dict[str, str]:
        """Return the environment of a login on the host: `pyswarm` on the path, this host's root."""
        kept = {k: v for k, v in os.environ.items() if k in ("TERM", "LANG", "HOME", "PYTHONDONTWRITEBYTECODE")}
        venv = str(Path(sys.executable).parent)
        path = f"{venv}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            **kept,
            "PATH": path,
            "PYSWARM_ROOT": str(self.state),
            "PS1": f"root@{self.name}:\\w# ",
            **self.extra_environment,
        }

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line that runs `arguments` on this host."""
        if self.init is None or not self.init.is_running:
            raise RuntimeError(f"host {self.name} is down; `pyswarm lab up` starts it again")
        flags = ["--pid", "--mount", "--net", "--uts", "--ipc"]
        return ["nsenter", "--target", str(self.init.pid), *flags, "--", *arguments]

    def run(
        self,
        *arguments: str,
        timeout_seconds: float = 60.0,
        check: bool = True,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host and return it with its output as text."""
        done = subprocess.run(
            self.command(arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
        )
        if check and done.returncode != 0:
            text = f"{done.stdout}{done.stderr}".strip()
            raise CommandFailed(f"{self.name}: `{' '.join(arguments)}` exited with {done.returncode}:\n{text}")
        return done

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command on the host, with its output as text on pipes."""
        return subprocess.Popen(
            self.command(arguments),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def partition(self) -> None:
        """Cut the host off the network without a carrier loss: what it sends and what is sent to it vanishes."""
        self.switch.isolate(self.name)

    def heal(self) -> None:
        self.switch.rejoin(self.name)


class CommandFailed(RuntimeError):
    """A command on a host exited with a status other than 0; the message holds its output."""
