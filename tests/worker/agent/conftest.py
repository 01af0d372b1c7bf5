"""A controller to drive."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lib.driven_task import Driven


@pytest.fixture
async def driven(tmp_path: Path) -> AsyncIterator[Driven]:
    made = Driven(tmp_path)
    yield made
    await made.stop()
