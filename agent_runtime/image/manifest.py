"""Read manifests, indexes and image configs (pure): what an image consists of, and which platform's it is."""

import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, json

from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, NotFound

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""What reading a document of the wrong shape raises."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class Descriptor(Struct, frozen=True):
    """A blob by what it must hash to. `size` is -1 when it was not said."""

    digest: str
    size: int = -1
    media_type: str = ""


class Manifest(Struct, frozen=True):
    config: Descriptor
    layers: tuple[Descriptor, ...]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_digest(text: object) -> str:
    """Return a digest if it is a well-formed SHA-256 one. Raises InvalidArgument: it becomes a file's name."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise InvalidArgument(
            f"{str(text)[:80]!r} is not a sha256 digest", remedy="Only SHA-256 digests are supported."
        )
    return text


def is_index(document: Mapping[str, Any]) -> bool:
    return document.get("mediaType") in INDEX_TYPES or ("manifests" in document and "layers" not in document)


def read_json(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.decode(data)
    except ValueError as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what} is not a JSON object")
    return document


def this_architecture() -> str:
    """Return this machine's architecture in OCI's words."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def choose_platform(index: Mapping[str, Any], what: str) -> Descriptor:
    """Return the manifest for this machine. Raises NotFound naming the platforms that there are."""
    wanted = this_architecture()
    offered = []
    try:
        for entry in index["manifests"]:
            where = entry.get("platform") or {}
            offered.append(f"{where.get('os', '?')}/{where.get('architecture', '?')}")
            if where.get("os", "linux") == "linux" and where.get("architecture", wanted) == wanted:
                return _descriptor(entry)
    except _MALFORMED as error:
        raise InvalidArgument(f"the index of {what} is malformed: {error!r}") from error
    raise NotFound(
        f"{what} is not made for linux/{wanted}", remedy=f"It is there for {', '.join(sorted(set(offered)))} only."
    )


def read_manifest(data: bytes, what: str) -> Manifest:
    """Return an image manifest. Raises InvalidArgument, FailedPrecondition for the ancient schema 1."""
    document = read_json(data, f"the manifest of {what}")
    if document.get("schemaVersion") != 2:
        raise FailedPrecondition(f"the manifest of {what} is of an unsupported schema", remedy="Push the image again.")
    try:
        return Manifest(_descriptor(document["config"]), tuple(_descriptor(entry) for entry in document["layers"]))
    except _MALFORMED as error:
        raise InvalidArgument(f"the manifest of {what} is malformed: {error!r}") from error


def _descriptor(entry: Mapping[str, Any]) -> Descriptor:
    return Descriptor(check_digest(entry["digest"]), int(entry.get("size", -1)), str(entry.get("mediaType", "")))


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chain id of each prefix of a stack of layers (OCI image-spec, config.md)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        check_digest(diff_id)
        chain.append(diff_id if not chain else digest_of(f"{chain[-1]} {diff_id}".encode()))
    return chain


def diff_ids(config: Mapping[str, Any], what: str) -> list[str]:
    try:
        return [check_digest(diff_id) for diff_id in config["rootfs"]["diff_ids"]]
    except _MALFORMED as error:
        raise InvalidArgument(f"the config of {what} names no layers") from error
