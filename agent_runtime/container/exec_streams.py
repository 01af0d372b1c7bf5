"""The standard streams of an exec: three pipes, or one terminal. Ours do not block; the child's are plain.

The terminal is made by us, on the machine's own devpts: a container's /dev/ptmx may be anything (CVE-2025-52565).
"""

import asyncio
import errno
import fcntl
import os
import struct
import termios

_READ_BYTES = 64 * 1024
_LAST_WORDS_SECONDS = 1.0
"""A terminal hands on what was written last only after its writer has gone."""


class Streams:
    """`stdin` is our end to write to (None: the child reads an end at once); `outputs` maps a name to our end."""

    def __init__(self, *, tty: bool, stdin: bool) -> None:
        self.is_tty = tty
        self._has_ended = False
        self._waiting: set[asyncio.Event] = set()
        self.stdin: int | None = None
        self.outputs: dict[str, int] = {}
        self.childs_ends: tuple[int, ...] = ()
        if tty:
            master, slave = os.openpty()
            self.outputs["stdout"] = master
            self.childs_ends = (slave, slave, slave)
            self.stdin = os.dup(master) if stdin else None
        else:
            ends = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
            if stdin:
                os.close(ends.pop())
                read, self.stdin = os.pipe2(os.O_CLOEXEC)
                ends.append(read)
            for name in ("stdout", "stderr"):
                self.outputs[name], write = os.pipe2(os.O_CLOEXEC)
                ends.append(write)
            self.childs_ends = tuple(ends)
        for descriptor in self._ours():
            os.set_blocking(descriptor, False)

    def _ours(self) -> list[int]:
        return [*self.outputs.values(), *(() if self.stdin is None else (self.stdin,))]

    def give_to(self, uid: int) -> None:
        """Let this user open the child's ends again, as /dev/stdout or by the terminal's name."""
        for descriptor in dict.fromkeys(self.childs_ends):
            if os.fstat(descriptor).st_rdev != os.makedev(1, 3):  # not the machine's /dev/null
                os.fchown(descriptor, uid, -1)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size, in characters; pipes have none."""
        if self.is_tty and rows and columns and self.outputs:
            size = struct.pack("=4H", min(rows, 0xFFFF), min(columns, 0xFFFF), 0, 0)
            fcntl.ioctl(self.outputs["stdout"], termios.TIOCSWINSZ, size)

    async def read(self, name: str) -> bytes:
        """Return what the process wrote next, b"" at the end."""
        descriptor = self.outputs[name]
        while True:
            try:
                return os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                if self._has_ended and not self.is_tty:
                    return b""  # a child it left behind may hold the other end for ever
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""  # nobody has the terminal open any more
                raise
            if not await self._news(descriptor):
                return b""

    async def _news(self, descriptor: int) -> bool:
        """Wait for something to read, or for the process to end; once it has, only a little; whether there is news."""
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        loop.add_reader(descriptor, news.set)
        self._waiting.add(news)
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS if self._has_ended else None):
                await news.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(news)
            loop.remove_reader(descriptor)

    def process_ended(self) -> None:
        """From now on, what is not there yet is not waited for."""
        self._has_ended = True
        for news in self._waiting:
            news.set()

    async def write(self, data: bytes) -> None:
        """Give the process input; what it does not want to read any more is dropped."""
        if self.stdin is not None and not await write_all(self.stdin, data):
            self.close_stdin()

    def close_stdin(self) -> None:
        """Let the process read an end; a terminal has none."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def close_childs_ends(self) -> None:
        for descriptor in dict.fromkeys(self.childs_ends):
            os.close(descriptor)
        self.childs_ends = ()

    def close(self) -> None:
        """Close what is open; a process that goes on writing gets SIGPIPE or SIGHUP."""
        self.close_stdin()
        self.close_childs_ends()
        for descriptor in self.outputs.values():
            os.close(descriptor)
        self.outputs.clear()


async def write_all(descriptor: int, data: bytes) -> bool:
    """Write to a descriptor that does not block, waiting where it must; False once nobody reads any more."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_writer(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(descriptor)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return False
    return True
