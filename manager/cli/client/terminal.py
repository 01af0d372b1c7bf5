"""Our own terminal while a program elsewhere has it: raw mode, its size, standard input, and the keys to let go."""

import asyncio
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from pyswarm.proto.errors import InvalidArgument

DEFAULT_KEYS = "ctrl-p,ctrl-q"
_READ_BYTES = 64 * 1024
_MOST_SIGNALS = 64


def parse_keys(text: str) -> bytes:
    """Return the bytes that `ctrl-p,ctrl-q` or `a,b` stand for. Raises InvalidArgument."""
    keys = bytearray()
    for name in text.split(","):
        _, ctrl, letter = name.rpartition("ctrl-")
        if ctrl and len(letter) == 1 and "@" <= letter.upper() <= "_":
            keys.append(ord(letter.upper()) - 64)
        elif len(name) == 1 and name.isascii():
            keys.append(ord(name))
        else:
            raise InvalidArgument(f'invalid detach keys "{text}"', remedy="Write keys such as ctrl-p,ctrl-q.")
    return bytes(keys)


class DetachKeys:
    """Finds the keys in what is typed, wherever it is cut. What may be their beginning is kept until it is not."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def pass_on(self, typed: bytes) -> tuple[bytes, bool]:
        """Return (what the program shall get, whether the keys were typed: the rest is not for it)."""
        text = self._held + typed
        before, found, _ = text.partition(self._keys)
        if found:
            return before, True
        length = next((n for n in range(len(self._keys) - 1, 0, -1) if text.endswith(self._keys[:n])), 0)
        self._held = text[len(text) - length :]
        return text[: len(text) - length], False


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Hand every key on as it is; everything as before afterwards."""
    before = termios.tcgetattr(sys.stdin)
    # At once: waiting would throw away what was typed ahead.
    tty.setraw(sys.stdin, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    """Return (rows, columns), of the terminal itself where there is one: LINES and COLUMNS may be of another."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        size = shutil.get_terminal_size()
    return size.lines, size.columns


async def resizes() -> AsyncIterator[tuple[int, int]]:
    """Yield the size of our terminal whenever it changes."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            yield terminal_size()
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def caught_signals(numbers: Sequence[int]) -> AsyncIterator[int]:
    """Yield the signals that we get instead of obeying them."""
    caught: asyncio.Queue[int] = asyncio.Queue(_MOST_SIGNALS)
    loop = asyncio.get_running_loop()

    def note(number: int) -> None:
        if not caught.full():  # one that was sent so often already is one and the same
            caught.put_nowait(number)

    for number in numbers:
        loop.add_signal_handler(number, note, number)
    try:
        while True:
            yield await caught.get()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def standard_input() -> AsyncIterator[bytes]:
    """Yield what comes on standard input until its end."""
    descriptor = sys.stdin.fileno()
    while data := await _read(descriptor):
        yield data


async def _read(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:
        return os.read(descriptor, _READ_BYTES)  # a file: it never makes us wait
    try:
        await ready.wait()
        return os.read(descriptor, _READ_BYTES)
    finally:
        loop.remove_reader(descriptor)
