"""Write a node's certificates so that a crash never leaves a key beside another key's certificate.

The directory `certificates` is replaced whole: a new one is written aside, synced and exchanged by renames. Between
the two renames the old one is called `certificates.old`: readers look there too (rpc/tls.py), and after a crash
`recover` puts it back.
"""

import os
import shutil
from pathlib import Path

from pyswarm.proto.rpc.tls import CERTIFICATE, KEY, ROOT_CA


def write_certificates(directory: Path, *, root_pem: str, certificate_pem: str, key_pem: str) -> None:
    """Write a fresh certificate directory, synced to disk, readable by its owner alone."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    for name, text in ((ROOT_CA, root_pem), (CERTIFICATE, certificate_pem), (KEY, key_pem)):
        descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    sync_directory(directory)
    sync_directory(directory.parent)


def replace_certificates(directory: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `directory`."""
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    fresh.rename(directory)
    sync_directory(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(directory: Path) -> None:
    """Undo an exchange that a crash cut in two."""
    old = directory.with_name(directory.name + ".old")
    if old.exists() and not directory.exists():
        old.rename(directory)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
