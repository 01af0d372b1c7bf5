"""Images made in memory, layer by layer, for the tests of everything that reads images."""

import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(
    name: str, content: bytes | None = None, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "",
    owner: tuple[int, int] = (0, 0), moment: float = 1_700_000_000, headers: Mapping[str, str] | None = None,
) -> tuple[tarfile.TarInfo, bytes]:  # fmt: skip
    """Return a member of a layer. `headers` are PAX headers, as `SCHILY.xattr.…`."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.mtime = kind, mode, link, moment
    info.uid, info.gid = owner
    info.pax_headers = dict(headers or {})
    info.size = len(content or b"")
    return info, content or b""


def folder(name: str, mode: int = 0o755, **options: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode, **options)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def layer_tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


COMPRESS = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@dataclass(frozen=True)
class MadeImage:
    """`blobs` are config and compressed layers by digest."""

    manifest: bytes
    media_type: str
    config: bytes
    layers: tuple[bytes, ...]
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def id(self) -> str:
        return digest_of(self.config)


def make_image(
    *tars: bytes, compression: str = "gzip", docker: bool = False, architecture: str = "amd64",
    config: Mapping[str, Any] | None = None, diff_ids: Sequence[str] | None = None,
) -> MadeImage:  # fmt: skip
    """Return an image of layers, lowest first. `diff_ids` replaces the right ones."""
    document = {
        "created": "2026-01-02T03:04:05Z",
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or map(digest_of, tars))},
    }
    config_bytes = json.dumps(document).encode()
    layers = tuple(COMPRESS[compression](tar) for tar in tars)
    suffix = {"plain": "", "gzip": ".gzip" if docker else "+gzip", "zstd": "+zstd"}[compression]
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json"
            if docker
            else "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config_bytes),
            "size": len(config_bytes),
        },
        "layers": [
            {
                "mediaType": (_DOCKER_LAYER if docker else _OCI_LAYER) + suffix,
                "digest": digest_of(layer),
                "size": len(layer),
            }
            for layer in layers
        ],
    }
    blobs = {digest_of(blob): blob for blob in (config_bytes, *layers)}
    return MadeImage(json.dumps(manifest).encode(), media_type, config_bytes, layers, blobs)


def make_index(*images: tuple[str, MadeImage]) -> bytes:
    """Return an index of (architecture, image)."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": image.media_type,
                    "digest": image.digest,
                    "size": len(image.manifest),
                    "platform": {"os": "linux", "architecture": architecture},
                }
                for architecture, image in images
            ],
        }
    ).encode()


def oci_layout(*named: tuple[str, MadeImage]) -> bytes:
    """Return an OCI layout archive of (name, image)."""
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
            for name, image in named
        ],
    }
    files = [entry("oci-layout", b"{}"), entry("index.json", json.dumps(index).encode())]
    for _, image in named:
        blobs = {image.digest: image.manifest, **image.blobs}
        files += [entry(f"blobs/sha256/{digest[7:]}", blob) for digest, blob in blobs.items()]
    return layer_tar(*files)


def push(url: str, repository: str, tag: str, image: MadeImage) -> None:
    """Push to a registry that demands nothing."""
    base = f"{url}/v2/{repository}"
    for digest, blob in image.blobs.items():
        location = _send("POST", f"{base}/blobs/uploads/", b"")["Location"]
        _send("PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", blob, "application/octet-stream")
    push_manifest(url, repository, tag, image.manifest, image.media_type)


def push_manifest(url: str, repository: str, tag_or_digest: str, data: bytes, media_type: str) -> None:
    _send("PUT", f"{url}/v2/{repository}/manifests/{tag_or_digest}", data, media_type)


def _send(method: str, url: str, body: bytes, kind: str = "application/octet-stream") -> Mapping[str, str]:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=30) as response:
        headers: Mapping[str, str] = response.headers
        return headers
