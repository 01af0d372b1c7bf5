"""`pyswarm-oci` for an ordinary user: enter a user namespace in which what a container takes is allowed, and go on
there.

To create, that is a new one with the ids that config.json maps; it becomes the container's own. To start or to execute
something, it is the container's. Either way the program begins anew in it, so that its memory belongs to that
namespace. What was allowed before still is: files and signals are those of the user who called.

More than the user's own id is mapped by newuidmap and newgidmap, within what /etc/subuid and /etc/subgid grant.
"""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from pyswarm.agent_runtime.bundle import runtime_spec
from pyswarm.agent_runtime.bundle.runtime_spec import Spec
from pyswarm.agent_runtime.bundle.spec_linux import IdMapping
from pyswarm.agent_runtime.bundle.validate import InvalidConfig
from pyswarm.agent_runtime.kernel import numbers as n
from pyswarm.agent_runtime.kernel.own_capabilities import own_capabilities
from pyswarm.agent_runtime.kernel.syscalls import syscall, unshare
from pyswarm.proto.errors import FailedPrecondition

ENTERED = "--in-user-namespace"
"""Given to the program when it begins anew."""
_EVERY_ID = ["0", "0", "4294967295"]


class CannotMapIds(FailedPrecondition):
    code = "cannot-map-ids"
    remedy = "Grant the user subordinate ids in /etc/subuid and /etc/subgid, and install newuidmap (Debian: uidmap)."


def is_ordinary_user() -> bool:
    """Whether we may not do to the machine what making a container takes."""
    return "CAP_SYS_ADMIN" not in own_capabilities("CapEff")


def in_user_namespace() -> bool:
    """Whether we are in a user namespace that is not the machine's."""
    return Path("/proc/self/uid_map").read_text().split() != _EVERY_ID


def default_root() -> Path:
    """Return where a user's containers are remembered. Raises FailedPrecondition."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if not folder:
        raise FailedPrecondition(
            "there is no place to remember containers in: XDG_RUNTIME_DIR is not set", remedy="Give one with --root."
        )
    return Path(folder, "pyswarm-oci")


def enter_new(spec: Spec) -> NoReturn:
    """Begin anew in a new user namespace with the ids that `spec` maps, as its root. Raises SwarmError."""
    if not any(each.type == "user" and not each.path for each in spec.linux.namespaces):
        raise InvalidConfig(
            "linux.namespaces",
            "an ordinary user's container needs a user namespace of its own: `spec --rootless` writes one",
        )
    for name, mappings, own in (
        ("uidMappings", spec.linux.uid_mappings, os.getuid()), ("gidMappings", spec.linux.gid_mappings, os.getgid()),
    ):  # fmt: skip
        if not any((each.container_id, each.host_id) == (0, own) for each in mappings):
            raise InvalidConfig(f"linux.{name}", f"does not map 0 to {own}, who calls")
    helper, go, said = _start_helper(spec.linux.uid_mappings, spec.linux.gid_mappings)
    try:
        unshare(n.CLONE_NEWUSER | n.CLONE_NEWNS)
    except OSError as error:
        os.close(go)
        os.waitpid(helper, 0)
        raise FailedPrecondition(
            f"an ordinary user may make no user namespace here: {os.strerror(error.errno or 0)}",
            remedy="See the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns.",
        ) from error
    os.write(go, b"1")
    with os.fdopen(said, "rb") as pipe:
        problem = pipe.read().decode(errors="replace")
    os.waitpid(helper, 0)
    if problem:
        raise CannotMapIds(f"config.json: linux.uidMappings: {problem}")
    _begin_anew()


def enter_that_of(pid: int) -> NoReturn:
    """Begin anew in the user namespace of a container's process, as its root. Raises OSError."""
    descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    syscall("setns", descriptor, n.CLONE_NEWUSER)
    _begin_anew()


def _begin_anew() -> NoReturn:
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    given = len(sys.argv) - 1
    program = sys.orig_argv[: len(sys.orig_argv) - given]
    os.execv(sys.executable, [*program, ENTERED, *sys.argv[1:]])


def _start_helper(uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> tuple[int, int, int]:
    """Start a process that stays in this user namespace, to map our ids when we have left it.

    Returns its pid, a descriptor to let it go on, and one on which it tells what went wrong.
    """
    ours, (wait, go), (said, tell) = os.getpid(), os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    helper = os.fork()
    if helper == 0:
        try:
            os.close(go)
            os.close(said)
            if os.read(wait, 1) == b"1":
                _map_ids(ours, uids, gids)
        except BaseException as error:  # noqa: BLE001 - a child must not return into its parent's code
            os.write(tell, (str(error) or repr(error)).encode()[:4000])
        finally:
            os._exit(0)
    os.close(wait)
    os.close(tell)
    return helper, go, said


def _map_ids(pid: int, uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> None:
    if len(gids) == 1 and gids[0].size == 1:
        # The kernel's condition for one who maps a group without being granted it.
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    for name, program, mappings in (("gid_map", "newgidmap", gids), ("uid_map", "newuidmap", uids)):
        lines = [[str(each.container_id), str(each.host_id), str(each.size)] for each in mappings]
        if len(mappings) == 1 and mappings[0].size == 1:
            Path(f"/proc/{pid}/{name}").write_text(" ".join(lines[0]))
            continue
        if shutil.which(program) is None:
            raise OSError(f"more than the user's own id is mapped, and there is no {program}")
        words = [word for line in lines for word in line]
        done = subprocess.run([program, str(pid), *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(done.stderr.strip() or f"{program} ended with {done.returncode}")


def without_user_namespace(spec: Spec) -> Spec:
    """Return the spec of a container whose user namespace is the one we are in."""
    linux = spec.linux
    others = tuple(each for each in linux.namespaces if each.type != "user")
    return msgspec.structs.replace(
        spec, linux=msgspec.structs.replace(linux, namespaces=others, uid_mappings=(), gid_mappings=())
    )


def rootless_spec(spec: Spec) -> Spec:
    """Return an example for the user who calls: with all ids that are granted, and no limits."""
    uids, gids = _mappings(os.getuid(), Path("/etc/subuid")), _mappings(os.getgid(), Path("/etc/subgid"))
    linux = msgspec.structs.replace(
        spec.linux,
        namespaces=(*spec.linux.namespaces, runtime_spec.Namespace("user")),
        uid_mappings=uids,
        gid_mappings=gids,
        resources=runtime_spec.Resources(),
    )
    # The group of terminals, as every other, has to be one that is mapped.
    mounts = tuple(
        msgspec.structs.replace(mount, options=tuple(each for each in mount.options if not each.startswith("gid=")))
        for mount in spec.mounts
    )
    return msgspec.structs.replace(spec, linux=linux, mounts=mounts)


def _mappings(own: int, granted: Path) -> tuple[IdMapping, ...]:
    """Map 0 to one's own id, and from 1 on those that are granted (subuid(5))."""
    mappings = [IdMapping(0, own, 1)]
    names = {str(os.getuid())}
    try:
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        pass  # a user without a name may be granted ids by number
    lines = granted.read_text().splitlines() if granted.exists() else []
    for line in lines:
        name, _, numbers = line.partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdecimal() and count.isdecimal():
            inside = mappings[-1].container_id + mappings[-1].size
            mappings.append(IdMapping(inside, int(first), int(count)))
    return tuple(mappings)
