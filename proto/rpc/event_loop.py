"""Event loops on which gRPC does not fall behind: all of its wake-ups are read in one turn.

gRPC's own thread puts what happened (a call, a message, an answer) into a queue and writes one byte for each into a
socket pair; the loop's reader takes one byte and all of the queue (`PollerCompletionQueue`, completion_queue.pyx.pxi).
So each byte beyond the first of a burst costs the loop a turn that finds nothing. Worse, the pair holds 278 such bytes:
once so many are unread, gRPC's thread is stuck in its `write`, and from then on only one event can happen in each turn.
A manager of 1,000 nodes, whose turns take milliseconds, answered heartbeats and people seconds late, with its loop free
and its processor idle. Here the loop takes all bytes but the last, which is the reader's, before it calls it: each was
written after its event had been put into the queue, so none is missed.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVarTuple

import uvloop

Ts = TypeVarTuple("Ts")

WAKE_UPS_MAX = 4096
"""Bytes taken in one turn: more than the pair holds."""


class GrpcUvloop(uvloop.Loop):
    """uvloop's loop."""

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        super().add_reader(fd, _all_at_once(fd, callback), *args)


class GrpcSelectorLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop."""

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        super().add_reader(fd, _all_at_once(fd, callback), *args)


def _all_at_once(fd: Any, callback: Callable[[*Ts], Any]) -> Callable[[*Ts], Any]:
    """Return what is to be called in place of `callback`: itself, unless it is gRPC's reader."""
    reader = callback.func if isinstance(callback, partial) else callback
    owner = getattr(reader, "__self__", None)
    if not (isinstance(fd, socket.socket) and type(owner).__name__ == "PollerCompletionQueue"):
        return callback

    def take_wake_ups(*args: *Ts) -> None:
        waiting = len(fd.recv(WAKE_UPS_MAX, socket.MSG_PEEK))
        if waiting > 1:
            fd.recv(waiting - 1)
        callback(*args)

    return take_wake_ups
