"""Hear that the kernel killed a process of a container for its memory limit, while the container goes on.

cgroup v2 tells by inotify that `memory.events` has changed, after the kill; v1 by an eventfd of each container's own
that memory has run out, just before it. Either way the counter is what counts, and is looked at again where it could
not have grown yet. What happens before a container is watched is seen when its watch begins.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.agent_runtime.kernel.inotify import OVERFLOWED, Inotify
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

Told = Callable[[str, int], None]
"""Called with a container's id and how many of its processes were killed so far."""

FIRST_LOOK_SECONDS = 0.2
"""When a container's watch begins after its start: shorter lives cost nothing, their end is looked at anyway."""
LOOK_AGAIN_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0)
"""After a v1 hierarchy has said that memory ran out: killing takes a moment, and may turn out not to be needed."""
PAUSE_SECONDS = 1.0
"""Between two times that one container's kills are told: dying of memory all the time must not drown what others do."""


@dataclass
class _Watched:
    told: int
    """How many kills were told."""
    timer: asyncio.TimerHandle | None = None
    quiet_until: float = 0.0
    """By the loop's clock."""
    eventfd: int | None = None
    watch: int | None = None
    looks: list[float] = field(default_factory=list)
    """Pauses before the looks that are still to come."""


class OomWatch:
    """Make it inside the event loop."""

    def __init__(self, cgroups: Cgroups, told: Told) -> None:
        self._cgroups = cgroups
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._names: dict[int, str] = {}
        self._inotify: Inotify | None = None
        if "memory" not in cgroups.layout.v1:
            self._inotify = Inotify()
            self._loop.add_reader(self._inotify.descriptor, self._on_changes)

    def watch(self, name: str, *, told: int = 0) -> None:
        """Watch a container that runs, of which `told` kills are known already, until it is forgotten."""
        assert name not in self._watched, name
        watched = self._watched[name] = _Watched(told)
        watched.timer = self._loop.call_later(FIRST_LOOK_SECONDS, self._begin, name, watched)

    def forget(self, name: str) -> None:
        """Watch a container no longer; one that is not watched is left alone."""
        watched = self._watched.pop(name, None)
        if watched is None:
            return
        if watched.timer is not None:
            watched.timer.cancel()
        if watched.eventfd is not None:
            self._loop.remove_reader(watched.eventfd)
            os.close(watched.eventfd)
        if watched.watch is not None:
            del self._names[watched.watch]
            assert self._inotify is not None, "it gave the watch"
            try:
                self._inotify.remove(watched.watch)
            except OSError as error:
                if error.errno != errno.EINVAL:  # gone with its cgroup
                    raise

    def close(self) -> None:
        for name in list(self._watched):
            self.forget(name)
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify.descriptor)
            self._inotify.close()

    def _begin(self, name: str, watched: _Watched) -> None:
        watched.timer = None
        try:
            if self._inotify is not None:
                watched.watch = self._inotify.add(self._cgroups.oom_file(name))
                self._names[watched.watch] = name
            else:
                watched.eventfd = self._cgroups.notify_of_oom(name)
                self._loop.add_reader(watched.eventfd, self._on_v1_event, name, watched)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return  # it has just ended
            log.warning("kills for memory of a container are told at its end only", container=name, error=error)
            return
        self._look(name, watched)

    def _on_changes(self) -> None:
        assert self._inotify is not None, "it is what became readable"
        changed = self._inotify.changed()
        names = self._watched if OVERFLOWED in changed else {self._names[watch] for watch in changed & set(self._names)}
        for name in list(names):
            self._look(name, self._watched[name])

    def _on_v1_event(self, name: str, watched: _Watched) -> None:
        assert watched.eventfd is not None, "it is what became readable"
        os.eventfd_read(watched.eventfd)
        watched.looks = list(LOOK_AGAIN_SECONDS)
        self._look(name, watched)

    def _look(self, name: str, watched: _Watched) -> None:
        if watched.timer is not None:
            return  # it is going to be looked at
        now = self._loop.time()
        kills = self._cgroups.oom_kills(name)
        if kills > watched.told:
            if now < watched.quiet_until:
                watched.timer = self._loop.call_at(watched.quiet_until, self._look_later, name, watched)
                return
            watched.told, watched.quiet_until, watched.looks = kills, now + PAUSE_SECONDS, []
            self._told(name, kills)
        elif watched.looks:
            watched.timer = self._loop.call_later(watched.looks.pop(0), self._look_later, name, watched)

    def _look_later(self, name: str, watched: _Watched) -> None:
        watched.timer = None
        self._look(name, watched)
