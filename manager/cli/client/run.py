"""Where a command's coroutine meets the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(command: Coroutine[Any, Any, T]) -> T:
    """Run to the end and return the result; raise what it raises."""
    return asyncio.run(command)
