"""`image ls`."""

from collections.abc import Sequence

from msgspec import Struct

from pyswarm.manager.cli.view.facts import rfc3339
from pyswarm.manager.cli.view.human import ago, size
from pyswarm.manager.cli.view.table import Row, column

IMAGE_COLUMNS = (
    column("REPOSITORY", "Repository"),
    column("TAG", "Tag"),
    column("IMAGE ID", "ID"),
    column("CREATED", "CreatedSince"),
    column("SIZE", "Size"),
)
_NONE = "<none>"


class StoredImage(Struct, frozen=True):
    """An image on this node, as its runtime tells it."""

    id: str
    digest: str
    references: tuple[str, ...]
    size_bytes: int
    created_at: float


def image_rows(images: Sequence[StoredImage], *, now: float, no_trunc: bool = False) -> list[Row]:
    """Return one row for each name of each image, the newest image first."""
    return [
        _row(image, reference, now, no_trunc)
        for image in sorted(images, key=lambda i: (-i.created_at, i.id))
        for reference in image.references or ("",)
    ]


def _row(image: StoredImage, reference: str, now: float, no_trunc: bool) -> Row:
    repository, tag = split_reference(reference)
    return {
        "Repository": repository or _NONE,
        "Tag": tag or _NONE,
        "Digest": image.digest or _NONE,
        "ID": image.id if no_trunc else image.id.removeprefix("sha256:")[:12],
        "CreatedAt": rfc3339(image.created_at),
        "CreatedSince": ago(image.created_at, now) if image.created_at else "N/A",
        "Size": size(image.size_bytes),
    }


def split_reference(reference: str) -> tuple[str, str]:
    """Return (repository, tag) without a digest; a colon before a slash belongs to a port."""
    name, _, _ = reference.partition("@")
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "")
