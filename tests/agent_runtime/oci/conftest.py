"""Fixtures: the OCI command line on a busybox rootfs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lib.oci_command import OciCommand, oci_command


@pytest.fixture
def oci(tmp_path: Path, layer: Path) -> Iterator[OciCommand]:
    with oci_command(tmp_path, layer) as command:
        yield command
