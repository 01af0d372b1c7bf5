"""Read an image reference as people type it, and say what is wrong with one that is none (pure).

The grammar is that of the OCI distribution project, with Docker's shorthands: no registry means
docker.io, a bare name there means `library/NAME`, and neither tag nor digest means `:latest`.
"""

import re
from typing import Final

from msgspec import Struct

from pyswarm.proto.errors import InvalidReference

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_NAME_LENGTH: Final = 255

_REGISTRY = re.compile(
    r"(?:(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])(?:\.(?:[a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9]))*|\[[0-9a-f:]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


class ImageReference(Struct, frozen=True):
    """A normalised reference. `tag` is "" only when a digest pins the image and no tag was given."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Return registry/repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """Return it as people write it, without docker.io/library."""
        repository = self.name
        if self.registry == DEFAULT_REGISTRY:
            repository = self.repository.removeprefix("library/") if self._is_official else self.repository
        return repository + self._suffix

    @property
    def _is_official(self) -> bool:
        return self.repository.startswith("library/") and self.repository.count("/") == 1

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix


def parse_reference(text: str) -> ImageReference:
    """Return the normalised reference; raise `InvalidReference` saying which part is wrong."""
    if not text:
        raise InvalidReference("the image reference is empty")
    if text != text.strip() or any(c.isspace() for c in text):
        raise InvalidReference(f"image reference {text!r} contains white space")
    if "://" in text:
        raise InvalidReference(
            f"image reference {text!r} is a URL", remedy="Leave out the scheme, as in host:5000/name:tag."
        )

    rest, has_digest, digest = text.partition("@")
    if has_digest and not _DIGEST.fullmatch(digest):
        raise InvalidReference(
            f"image reference {text!r}: {digest!r} is no digest",
            remedy="A digest reads sha256: followed by 64 hexadecimal digits in lower case.",
        )
    # The last colon starts a tag only when no slash follows: before a slash it starts a port.
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, colon, tag = rest, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"image reference {text!r}: {tag!r} is no tag",
            remedy="A tag has at most 128 letters, digits, underscores, dots and dashes; no dot or dash comes first.",
        )
    registry, repository = _split_registry(text, name)
    _check_repository(text, registry, repository)
    return ImageReference(registry, repository, tag or ("" if digest else DEFAULT_TAG), digest)


def _split_registry(text: str, name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # A first part with a dot, a port or capitals cannot be a Docker Hub account: it is a host.
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        match = _REGISTRY.fullmatch(first)
        if match is None or int(match["port"] or 1) not in range(1, 65536):
            raise InvalidReference(f"image reference {text!r}: {first!r} is no registry host")
        if first.lower() not in (DEFAULT_REGISTRY, "index.docker.io"):
            return first.lower(), rest
        name = rest
    return DEFAULT_REGISTRY, name if "/" in name else f"library/{name}"


def _check_repository(text: str, registry: str, repository: str) -> None:
    if _BARE_ID.fullmatch(repository.removeprefix("library/")):
        raise InvalidReference(
            f"image reference {text!r} is an image id, which other nodes could not pull",
            remedy="Name the image by repository and tag or digest.",
        )
    if len(registry) + 1 + len(repository) > MAX_NAME_LENGTH:
        raise InvalidReference(f"image reference {text[:40]!r}… has a name of more than {MAX_NAME_LENGTH} characters")
    for component in repository.split("/"):
        if _COMPONENT.fullmatch(component):
            continue
        if not component or repository == "library/":
            raise InvalidReference(f"image reference {text!r} lacks a name between its separators")
        if component != component.lower():
            raise InvalidReference(
                f"image reference {text!r}: {component!r} has capital letters",
                remedy=f"Repositories are written in lower case: {component.lower()}.",
            )
        raise InvalidReference(
            f"image reference {text!r}: {component!r} is no repository name",
            remedy="Name parts have lower-case letters and digits, with single dots, underscores or dashes between.",
        )
