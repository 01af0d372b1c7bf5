"""Terminals: fetch the one a container opened, hand it to whoever wants it, or carry bytes between it and ours."""

import array
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyswarm.agent_runtime.bundle.compile_bundle import CONSOLE_MASTER
from pyswarm.agent_runtime.kernel.syscalls import syscall
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument

_PTMX = os.makedev(5, 2)
_CHUNK = 65536


def fetch(pidfd: int) -> int:
    """Return our copy of a child's terminal, having made sure that it is one (an image could put a file there)."""
    master = syscall("pidfd_getfd", pidfd, CONSOLE_MASTER, 0)
    facts = os.fstat(master)
    if not stat.S_ISCHR(facts.st_mode) or facts.st_rdev != _PTMX:
        os.close(master)
        raise FailedPrecondition("the container's /dev/ptmx is no terminal", remedy="Mount devpts on /dev/pts.")
    return master


def hand_over(console_socket: str, master: int) -> None:
    """Send a terminal to whoever listens on a socket, and close it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(console_socket)
            socket.send_fds(connection, [b"/dev/ptmx"], [master])
    except OSError as error:
        raise InvalidArgument(
            f"cannot hand the terminal over to {console_socket}: {os.strerror(error.errno or 0)}",
            remedy="Listen on the socket given with --console-socket first.",
        ) from error
    finally:
        os.close(master)


def check_console_socket(path: str) -> None:
    if not path or not Path(path).is_socket():
        raise InvalidArgument(
            "process.terminal is set, and there is nobody to hand the terminal to",
            remedy="Give --console-socket with a socket that is listened on, or clear process.terminal.",
        )


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Let every key through, if the descriptor is a terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def resize(master: int) -> None:
    """Give the container's terminal the size of ours."""
    for descriptor in (0, 1, 2):
        if os.isatty(descriptor):
            size = array.array("h", struct.pack("=4h", 0, 0, 0, 0))
            fcntl.ioctl(descriptor, termios.TIOCGWINSZ, size)
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
            return


def carry(master: int, pidfd: int) -> None:
    """Carry bytes between our standard streams and a terminal until its process has ended and all is said."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(0, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    wakeup_read, wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGWINCH, lambda *_: os.write(wakeup_write, b"w"))
    poll.register(wakeup_read, select.POLLIN)
    resize(master)
    try:
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wakeup_read:
                    os.read(wakeup_read, 4096)
                    resize(master)
                elif descriptor == 0:
                    data = os.read(0, _CHUNK)
                    if data:
                        os.write(master, data)
                    else:
                        poll.unregister(0)
                elif descriptor == master and not _say(master):
                    poll.unregister(master)
                elif descriptor == pidfd:
                    _drain(master)
                    return
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        os.close(wakeup_read)
        os.close(wakeup_write)


def _say(master: int) -> bool:
    try:
        data = os.read(master, _CHUNK)
    except OSError:  # EIO: the last process of the terminal has closed it
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
    return bool(data)


def _drain(master: int) -> None:
    os.set_blocking(master, False)
    try:
        while _say(master):
            pass
    except BlockingIOError:
        pass
