"""Build the lab's web image without any container tool, and push it to a registry.

    python -m pyswarm.deploy.lab.images build-web --version 1 --out web.tar --tag web:1 --push http://127.0.0.1:5000

The image is one layer: Debian's statically linked busybox under its usual names, and a small site. The same input gives
the same bytes, hence the same digests.
"""

import argparse
import gzip
import hashlib
import io
import json
import platform
import re
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

_ENTRY = """\
#!/bin/sh
# Serve three pages; end at once when told to: for the first process of a container SIGTERM does nothing by itself.
trap 'kill $server 2>/dev/null; exit 0' TERM INT
address=$(ip -4 -o addr show dev eth0 2>/dev/null | awk '{print $4}' | cut -d/ -f1)
mkdir -p /tmp/site
printf '%s' '{version}' > /tmp/site/version
echo ok > /tmp/site/health
printf '<h1>pyswarm</h1>\\n<p>image version %s, served by %s at %s</p>\\n' '{version}' "$(hostname)" "$address" \\
  > /tmp/site/index.html
echo "web {version} serving on $(hostname) at $address"
httpd -f -p 80 -h /tmp/site &
server=$!
wait $server
"""


@dataclass(frozen=True)
class Image:
    """An image in memory: its manifest, config and single compressed layer."""

    manifest: bytes
    config: bytes
    layer: bytes

    @property
    def digest(self) -> str:
        return _digest(self.manifest)

    @property
    def diff_ids(self) -> list[str]:
        found: list[str] = json.loads(self.config)["rootfs"]["diff_ids"]
        return found


def busybox_files() -> dict[str, bytes | str]:
    """Return busybox and a link to it for each of its applets. Raises RuntimeError naming the package."""
    if not BUSYBOX.exists():
        raise RuntimeError("busybox is not installed; `apt-get install busybox-static` brings it")
    listed = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout.split()
    files: dict[str, bytes | str] = {"bin/busybox": BUSYBOX.read_bytes()}
    return files | {f"bin/{name}": "/bin/busybox" for name in listed if name != "busybox"}


def web_image(version: str) -> Image:
    """Return the web image: a page that says which version answered, and where. Raises ValueError for odd versions."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", version):
        raise ValueError(f"{version!r} is no version: use letters, digits, dots, dashes and underscores")
    files = busybox_files() | {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
        "entry.sh": _ENTRY.replace("{version}", version).encode(),
    }
    return build_image(
        files, {"Entrypoint": ["/bin/sh", "/entry.sh"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}}
    )


def build_image(files: Mapping[str, bytes | str], config: Mapping[str, Any]) -> Image:
    """Return an image of one layer. A file's value is its content, or the target of a symbolic link."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for name in sorted(files):
            content = files[name]
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                entry.mode = 0o755 if name.startswith("bin/") or name.endswith(".sh") else 0o644
                tar.addfile(entry, io.BytesIO(content))
    layer = gzip.compress(raw.getvalue(), mtime=0)
    document = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [_digest(raw.getvalue())]},
    }
    config_bytes = json.dumps(document, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": _digest(config_bytes), "size": len(config_bytes)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": _digest(layer), "size": len(layer)}],
    }
    return Image(json.dumps(manifest, sort_keys=True).encode(), config_bytes, layer)


def write_layout(image: Image, path: Path, reference: str) -> None:
    """Write an image as an OCI layout archive."""
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": MANIFEST_TYPE,
                "digest": image.digest,
                "size": len(image.manifest),
                "annotations": {"org.opencontainers.image.ref.name": reference},
            }
        ],
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index, sort_keys=True).encode(),
        **{f"blobs/sha256/{_digest(b)[7:]}": b for b in (image.manifest, image.config, image.layer)},
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def push(image: Image, registry: str, reference: str) -> None:
    """Push an image to a registry's base URL under `repository:tag`. Raises RuntimeError with the registry's answer."""
    repository, _, tag = reference.partition(":")
    base = f"{registry.rstrip('/')}/v2/{repository}"
    for blob in (image.layer, image.config):
        digest = _digest(blob)
        if _request("HEAD", f"{base}/blobs/{digest}")[0] == 200:
            continue
        status, headers = _request("POST", f"{base}/blobs/uploads/", b"")
        if status != 202:
            raise RuntimeError(f"{registry} does not take a blob: status {status}")
        location = headers["Location"]
        url = location if location.startswith("http") else registry.rstrip("/") + location
        status, _ = _request(
            "PUT", f"{url}{'&' if '?' in url else '?'}digest={digest}", blob, "application/octet-stream"
        )
        if status != 201:
            raise RuntimeError(f"{registry} refused blob {digest}: status {status}")
    status, _ = _request("PUT", f"{base}/manifests/{tag or 'latest'}", image.manifest, MANIFEST_TYPE)
    if status != 201:
        raise RuntimeError(f"{registry} refused the manifest: status {status}")


def _request(method: str, url: str, body: bytes | None = None, kind: str = "") -> tuple[int, Mapping[str, str]]:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind} if kind else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def command(*arguments: str) -> list[str]:
    """Return the command line that runs this module with `arguments`."""
    return [sys.executable, "-m", "pyswarm.deploy.lab.images", *arguments]


def main() -> None:
    parser = argparse.ArgumentParser(description="build and push the lab's images")
    commands = parser.add_subparsers(dest="command", required=True)
    web = commands.add_parser("build-web", help="the web site of the examples")
    web.add_argument("--version", required=True)
    web.add_argument("--out", type=Path)
    web.add_argument("--tag", default="web:latest")
    web.add_argument("--push", metavar="URL")
    arguments = parser.parse_args()
    try:
        image = web_image(arguments.version)
        if arguments.out is not None:
            write_layout(image, arguments.out, arguments.tag)
        if arguments.push:
            push(image, arguments.push, arguments.tag)
    except (RuntimeError, ValueError, OSError) as error:
        sys.exit(str(error))
    print(image.digest)


if __name__ == "__main__":
    main()
