"""Who a container runs as: `user[:group]`, looked up in the image's own passwd and group files. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from pyswarm.agent_runtime.bundle.runtime_spec import Capabilities, Process, User
from pyswarm.proto.errors import InvalidArgument

_LARGEST_ID = 2**31 - 1


@dataclass(frozen=True)
class ResolvedUser:
    user: User
    home: str


def resolve(wanted: str, passwd: str, group: str, added: Sequence[str] = ()) -> ResolvedUser:
    """Return ids, additional groups and home directory of `wanted`: "", `name`, `uid`, `name:group`, `uid:gid`.

    `added` are groups besides those. A name must be in the image; a number need not. Raises InvalidArgument.
    """
    name, colon, group_name = wanted.partition(":")
    entry = _find(_rows(passwd, 7), name or "0")
    if entry is not None:
        uid, gid, home, login = int(entry[2]), int(entry[3]), entry[5] or "/", entry[0]
    elif not name or name.isdecimal():
        uid, gid, home, login = _number(name or "0", "user"), 0, "/root" if name in ("", "0") else "/", ""
    else:
        raise InvalidArgument(
            f"unable to find user {name}: no matching entry in the image's passwd file",
            remedy="Name a user of the image, or give its number.",
        )
    groups = list(_rows(group, 4))
    more = {_group(name, groups) for name in added}
    if colon:
        gid = _group(group_name, groups)
    else:
        more |= {int(row[2]) for row in groups if login and login in row[3].split(",")}
    return ResolvedUser(User(uid, gid, tuple(sorted(more - {gid}))), home)


def with_rights(process: Process) -> Process:
    """Give root all capabilities of its bounding set and any other user none, as Docker does: what that one may regain
    by executing something stays bounded."""
    names = process.capabilities.bounding
    held = names if process.user.uid == 0 else ()
    rights = Capabilities(bounding=names, effective=held, permitted=held)
    return msgspec.structs.replace(process, capabilities=rights)


def _group(name: str, rows: list[list[str]]) -> int:
    row = _find(rows, name)
    if row is not None:
        return int(row[2])
    if name.isdecimal():
        return _number(name, "group")
    raise InvalidArgument(
        f"unable to find group {name}: no matching entry in the image's group file",
        remedy="Name a group of the image, or give its number.",
    )


def _rows(text: str, columns: int) -> Iterable[list[str]]:
    for line in text.splitlines():
        row = line.strip().split(":")
        numeric = len(row) >= columns and row[2].isdecimal() and (columns < 7 or row[3].isdecimal())
        if numeric and not line.startswith("#"):
            yield row


def _find(rows: Iterable[list[str]], wanted: str) -> list[str] | None:
    by_id = None
    for row in rows:
        if row[0] == wanted:
            return row
        if by_id is None and row[2] == wanted:
            by_id = row
    return by_id


def _number(text: str, what: str) -> int:
    number = int(text)
    if number > _LARGEST_ID:
        raise InvalidArgument(f"{what} {text} is out of range", remedy=f"Use a number up to {_LARGEST_ID}.")
    return number
