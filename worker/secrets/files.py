"""Secrets and configs of this node's tasks: contents in memory as managers sent them, files on a tmpfs for containers.

Nothing of them is ever on a disk. The tmpfs outlives this process, so that a task which was accepted before a restart
can be started after it with no manager in reach; it is taken away when the node leaves its cluster.

    <directory>/                  tmpfs, 0700
        <task id>/<n>             the n-th file of a task, with the owner and mode it asked for
        <task id>/in-place-<n>/   a directory of the container in which files are replaced, with all its files

A container's mount of a file stays with what was there when it was made, whatever is renamed to its name. So a file
that is to be replaced is mounted with its directory: a rename in there is seen by the container at once and whole.
"""

import asyncio
import os
import posixpath
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from pyswarm.proto.errors import Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.spec import ConfigReference, ContainerSpec, Mount, SecretReference, payload_id, replaced_files
from pyswarm.proto.model.states import MountType

log = get_logger(__name__)

MOUNT_SECONDS_MAX = 10.0


class SecretFiles:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._payloads: dict[str, bytes] = {}
        self._is_ready = False

    # -- what managers send

    def take(self, payloads: Mapping[str, bytes]) -> None:
        """Keep what secrets and configs hold, by their ids."""
        self._payloads |= payloads

    def keep_only(self, payloads: Mapping[str, bytes]) -> None:
        """Keep these and no others."""
        self._payloads = dict(payloads)

    def forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._payloads.pop(id, None)

    # -- what tasks see

    async def write(self, task_id: str, spec: ContainerSpec) -> tuple[Mount, ...]:
        """Write the files a task asks for and return their mounts. Doing it again changes nothing.

        Raises:
            Unavailable: what one of them holds is not here (yet).
            OSError: there is no memory for them.
        """
        references: tuple[SecretReference | ConfigReference, ...] = (*spec.secrets, *spec.configs)
        if not references:
            return ()
        await self._ready()
        folder = self._directory / task_id
        folder.mkdir(exist_ok=True, mode=0o700)
        shared = _shared_directories(spec)
        mounts = []
        for number, reference in enumerate(references):
            within = posixpath.dirname(reference.path)
            if within in shared:
                directory = folder / shared[within]
                directory.mkdir(exist_ok=True)
                directory.chmod(0o755)
                self._file(directory / posixpath.basename(reference.path), reference)
            else:
                mounts.append(self._file(folder / str(number), reference))
        mounts += [_mounted(folder / name, within) for within, name in shared.items()]
        return tuple(mounts)

    def replace(self, task_id: str, spec: ContainerSpec) -> tuple[str, ...]:
        """Replace what is of another version in a task's files; return the signals to tell its container of that.

        A file whose content has not come stays as it is. Raises OSError when there is no memory for one.
        """
        shared = _shared_directories(spec)
        signals: dict[str, None] = {}
        for reference in replaced_files(spec):
            content = self._payloads.get(payload_id(reference))
            within, name = posixpath.split(reference.path)
            if content is None:
                continue
            path = self._directory / task_id / shared[within] / name
            if path.exists() and path.read_bytes() != content:
                _write_aside(path, content, reference)
                signals |= {reference.file.signal: None} if reference.file.signal else {}
        return tuple(signals)

    def remove(self, task_id: str) -> None:
        """Take a task's files away. Those that a container still has mounted stay visible to it alone."""
        shutil.rmtree(self._directory / task_id, ignore_errors=True)

    async def remove_everything(self) -> None:
        """Forget all contents and take the tmpfs away: the node leaves its cluster."""
        self._payloads.clear()
        if self._directory.is_mount():
            await _run("umount", "--lazy", str(self._directory))
        self._is_ready = False

    def _file(self, path: Path, reference: SecretReference | ConfigReference) -> Mount:
        # An existing file is whole: it was renamed into its place.
        if not path.exists():
            _write_aside(path, self._content(reference), reference)
        return _mounted(path, reference.path)

    def _content(self, reference: SecretReference | ConfigReference) -> bytes:
        is_secret = isinstance(reference, SecretReference)
        id = payload_id(reference)
        name = reference.secret_name if isinstance(reference, SecretReference) else reference.config_name
        content = self._payloads.get(id)
        if content is None:
            kind = "secret" if is_secret else "config"
            raise Unavailable(f"{kind} {name} has not come from the managers, or was removed")
        return content

    async def _ready(self) -> None:
        if self._is_ready:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._directory.is_mount():
            await self._mount()
        self._is_ready = True

    async def _mount(self) -> None:
        options = "mode=0700,nosuid,nodev,noexec"
        try:
            await _run("mount", "-t", "tmpfs", "-o", f"{options},noswap", "pyswarm-secrets", str(self._directory))
        except OSError:
            # Before Linux 6.4 a tmpfs cannot be kept from the swap space.
            log.warning("secrets may be swapped out: this kernel cannot prevent it")
            await _run("mount", "-t", "tmpfs", "-o", options, "pyswarm-secrets", str(self._directory))


def _shared_directories(spec: ContainerSpec) -> Mapping[str, str]:
    """Return the directories of the container in which files are replaced, and what they are called here."""
    found = sorted({posixpath.dirname(r.path) for r in replaced_files(spec)})
    return {within: f"in-place-{number}" for number, within in enumerate(found)}


def _mounted(source: Path, target: str) -> Mount:
    return Mount(type=MountType.BIND, source=str(source), target=target, read_only=True)


def _write_aside(path: Path, content: bytes, reference: SecretReference | ConfigReference) -> None:
    aside = path.with_name(f".{path.name}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        # The owner first: changing it takes set-id bits away.
        os.fchown(file.fileno(), int(reference.file.uid), int(reference.file.gid))
        os.fchmod(file.fileno(), reference.file.mode)
    aside.rename(path)


async def _run(*command: str) -> None:
    """Run a command. Raises OSError with what it said."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    async with asyncio.timeout(MOUNT_SECONDS_MAX):
        _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command[:1])} failed: {said.decode(errors='replace').strip()}")
