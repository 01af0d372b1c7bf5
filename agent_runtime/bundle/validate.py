"""Say no to a config.json that could never become a container, naming the field. Pure.

What decoding has checked (types, required members) is not repeated. What only the kernel or the disk can tell is
found when the start program runs, whose operations name their fields as well. `validate_linux.py` does the `linux`
object.
"""

from collections.abc import Iterable
from typing import NoReturn

import msgspec

from pyswarm.agent_runtime.bundle.machine_facts import IO_CLASSES, SCHEDULER_FLAGS, SCHEDULER_POLICIES
from pyswarm.agent_runtime.bundle.mount_options import parse
from pyswarm.agent_runtime.bundle.runtime_spec import Capabilities, Process, Spec
from pyswarm.agent_runtime.kernel import capabilities
from pyswarm.agent_runtime.kernel.numbers import RLIMIT_NUMBERS
from pyswarm.proto.errors import InvalidArgument

LARGEST_ID = 2**32 - 2
"""(uid_t) -1 means "do not change"."""
_U64, _I32 = 2**64 - 1, 2**31 - 1
_LONGEST_NAME = 64
_LONGEST_TEXT = 131_071
"""The longest argument or variable that execve takes."""


class InvalidConfig(InvalidArgument):
    """A config.json that cannot work; `field` says which member."""

    code = "invalid-config"
    remedy = "Correct the bundle's config.json: `pyswarm-oci spec` writes one that works."

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"config.json: {field}: {problem}")
        self.field = field


def reject(field: str, problem: str) -> NoReturn:
    raise InvalidConfig(field, problem)


def validate(spec: Spec) -> None:
    """Raise InvalidConfig for the first thing that is wrong outside `linux`."""
    major = spec.oci_version.split(".")[0]
    if major != "1":
        reject("ociVersion", f"{spec.oci_version!r} is no version 1 of the specification")
    validate_process(spec.process)
    text("root.path", spec.root.path, empty=False)
    kinds = {namespace.type for namespace in spec.linux.namespaces}
    for field, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        text(field, name)
        if len(name.encode()) > _LONGEST_NAME:
            reject(field, f"is longer than {_LONGEST_NAME} bytes")
        if name and "uts" not in kinds:
            reject(field, "cannot be set without a uts namespace of the container's own")
    _mounts(spec)
    _hooks(spec)


def validate_process(process: Process, *, at: str = "process") -> None:
    """Raise InvalidConfig for a process that could never be executed."""
    if not process.args or not process.args[0]:
        reject(f"{at}.args", "names no program")
    for index, word in enumerate(process.args):
        text(f"{at}.args[{index}]", word)
    for index, line in enumerate(process.env):
        text(f"{at}.env[{index}]", line)
    absolute(f"{at}.cwd", process.cwd)
    user = process.user
    for field, value in (("uid", user.uid), ("gid", user.gid), *_indexed("additionalGids", user.additional_gids)):
        number(f"{at}.user.{field}", value, 0, LARGEST_ID)
    number(f"{at}.user.umask", user.umask, 0, 0o777)
    _rlimits(process, at)
    if process.oom_score_adj is not None:
        number(f"{at}.oomScoreAdj", process.oom_score_adj, -1000, 1000)
    if process.console_size is not None:
        number(f"{at}.consoleSize.height", process.console_size.height, 0, 65535)
        number(f"{at}.consoleSize.width", process.console_size.width, 0, 65535)
    _priorities(process, at)
    # Without a word, a container would run with less protection than was asked for.
    if process.apparmor_profile not in ("", "unconfined"):
        reject(f"{at}.apparmorProfile", 'is not supported: leave it out or make it "unconfined"')
    if process.selinux_label:
        reject(f"{at}.selinuxLabel", "is not supported: leave it out")


def grantable(sets: Capabilities, ours: frozenset[str]) -> tuple[Capabilities, list[str]]:
    """Return the sets without what does not exist or we do not hold, and a warning for each such name.

    The specification wants a warning, not an error. An ambient capability must be permitted and inheritable.
    """
    names = ("bounding", "effective", "permitted", "inheritable", "ambient")
    wanted = {name: getattr(sets, name) for name in names}
    missing = sorted({each for values in wanted.values() for each in values} - (ours & set(capabilities.NAMES)))
    kept = {name: tuple(each for each in values if each not in missing) for name, values in wanted.items()}
    raisable = set(kept["permitted"]) & set(kept["inheritable"])
    kept["ambient"] = tuple(each for each in kept["ambient"] if each in raisable)
    kept["effective"] = tuple(each for each in kept["effective"] if each in kept["permitted"])
    return Capabilities(**kept), [f"the capability {each} cannot be granted here and is left out" for each in missing]


def _rlimits(process: Process, at: str) -> None:
    seen: set[str] = set()
    for index, limit in enumerate(process.rlimits):
        field = f"{at}.rlimits[{index}]"
        if limit.type not in RLIMIT_NUMBERS:
            reject(f"{field}.type", f"there is no limit {limit.type!r}")
        if limit.type in seen:
            reject(f"{field}.type", f"{limit.type} is given twice")
        seen.add(limit.type)
        number(f"{field}.soft", limit.soft, 0, _U64)
        number(f"{field}.hard", limit.hard, 0, _U64)
        if limit.soft > limit.hard:
            reject(f"{field}.soft", "is above the hard limit")


def _priorities(process: Process, at: str) -> None:
    if process.io_priority is not None:
        one_of(f"{at}.ioPriority.class", process.io_priority.level, IO_CLASSES)
        number(f"{at}.ioPriority.priority", process.io_priority.priority, 0, 7)
    wanted = process.scheduler
    if wanted is not None:
        one_of(f"{at}.scheduler.policy", wanted.policy, SCHEDULER_POLICIES)
        for index, flag in enumerate(wanted.flags):
            one_of(f"{at}.scheduler.flags[{index}]", flag, SCHEDULER_FLAGS)
        number(f"{at}.scheduler.nice", wanted.nice, -20, 19)
        number(f"{at}.scheduler.priority", wanted.priority, 0, 99)
        for field in ("runtime", "deadline", "period"):
            number(f"{at}.scheduler.{field}", getattr(wanted, field), 0, _U64)


def _mounts(spec: Spec) -> None:
    for index, mount in enumerate(spec.mounts):
        field = f"mounts[{index}]"
        text(f"{field}.destination", mount.destination, empty=False)
        text(f"{field}.type", mount.type)
        text(f"{field}.source", mount.source)
        for at, option in enumerate(mount.options):
            text(f"{field}.options[{at}]", option)
        options = parse(mount.options)
        binds = options.binds or mount.type == "bind"
        if not mount.type and not binds and "remount" not in options.own:
            reject(f"{field}.type", "is missing, and the mount is no bind mount")
        if binds and not mount.source and "remount" not in options.own:
            reject(f"{field}.source", "is missing")
        if "copy-symlink" in mount.options:
            reject(f"{field}.options", "copy-symlink is not supported: it is not the specification's")
        if options.copies_up and (binds or mount.type != "tmpfs"):
            reject(f"{field}.options", "tmpcopyup is for a tmpfs")
        if bool(mount.uid_mappings) != bool(mount.gid_mappings):
            reject(f"{field}.uidMappings", "uidMappings and gidMappings belong together")
        if options.own & {"idmap", "ridmap"} and not mount.uid_mappings and not spec.linux.uid_mappings:
            reject(f"{field}.options", "idmap needs uidMappings, of the mount or of linux")


def _hooks(spec: Spec) -> None:
    wire_names = {f.name: f.encode_name for f in msgspec.structs.fields(spec.hooks)}
    for name, wire_name in wire_names.items():
        for index, hook in enumerate(getattr(spec.hooks, name)):
            field = f"hooks.{wire_name}[{index}]"
            absolute(f"{field}.path", hook.path)
            for at, word in enumerate((*hook.args, *hook.env)):
                text(f"{field}.args[{at}]", word)
            if hook.timeout is not None:
                number(f"{field}.timeout", hook.timeout, 1, _I32)


def text(field: str, value: str, *, empty: bool = True) -> None:
    """Refuse what no system call could take."""
    if not value and not empty:
        reject(field, "is missing")
    if "\0" in value:
        reject(field, "holds a NUL character")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        reject(field, "is no valid Unicode")
    if length > _LONGEST_TEXT:
        reject(field, f"is longer than {_LONGEST_TEXT} bytes")


def absolute(field: str, path: str) -> None:
    text(field, path)
    if not path.startswith("/"):
        reject(field, f"{path!r} is no absolute path")


def number(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        reject(field, f"{value} is not between {least} and {most}")


def one_of(field: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        reject(field, f"{value!r} is none of {', '.join(known)}")


def _indexed(name: str, values: Iterable[int]) -> list[tuple[str, int]]:
    return [(f"{name}[{index}]", value) for index, value in enumerate(values)]
