"""Which names point to which image: one small file, replaced whole, so that a change has happened or has not.

Names point to manifests by digest. An image that lost its last name to another stays under a name of its own that
nobody typed, until it is removed: a container may still run from it.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pyswarm.agent_runtime.image.content import disk_error, sync_directory
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

_NAMELESS = "<none>@"


class References:
    def __init__(self, file: Path, is_complete: Callable[[str], bool]) -> None:
        """Read `file`. Images of which something is lost are forgotten: they will be pulled anew."""
        self._file = file
        stored: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        lost = {digest for digest in set(stored.values()) if not is_complete(digest)}
        self._digests = {name: digest for name, digest in stored.items() if digest not in lost}
        for digest in sorted(lost):
            log.warning("an image has lost its content and is forgotten", digest=digest)

    def get(self, name: str) -> str | None:
        return self._digests.get(name)

    def digests(self) -> set[str]:
        """Return every image there is."""
        return set(self._digests.values())

    def names(self, digest: str) -> tuple[str, ...]:
        """Return the names people gave an image."""
        return tuple(sorted(n for n, d in self._digests.items() if d == digest and not n.startswith(_NAMELESS)))

    def point(self, names: Iterable[str], digest: str) -> None:
        """Let names point to an image, away from those they pointed to; every image is kept, with a name or without."""
        wanted = dict(self._digests) | dict.fromkeys(names, digest) | {_NAMELESS + digest: digest}
        self._replace(_with_needed_nameless(wanted | {_NAMELESS + d: d for d in self.digests()}))

    def untag(self, names: Iterable[str]) -> None:
        """Forget names; an image that loses its last one is kept without."""
        gone = set(names)
        wanted = {n: d for n, d in self._digests.items() if n not in gone} | {_NAMELESS + d: d for d in self.digests()}
        self._replace(_with_needed_nameless(wanted))

    def forget(self, digest: str) -> None:
        """Forget an image with all its names."""
        self._replace({n: d for n, d in self._digests.items() if d != digest})

    def _replace(self, wanted: dict[str, str]) -> None:
        if wanted == self._digests:
            return
        aside = self._file.with_suffix(".new")
        try:
            with aside.open("w") as file:
                json.dump(wanted, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._file)
            sync_directory(self._file.parent)
        except OSError as error:
            raise disk_error(error, "the list of images") from error
        self._digests = wanted


def _with_needed_nameless(references: dict[str, str]) -> dict[str, str]:
    """Return the references without those nameless ones whose image has a name."""
    named = {digest for name, digest in references.items() if not name.startswith(_NAMELESS)}
    return {n: d for n, d in references.items() if not (n.startswith(_NAMELESS) and d in named)}
