"""Do the damage that nemesis_faults.py planned, and undo it.

Faults of one round begin together and end together. The driver remembers which processes it stopped and which links
it cut, so that `heal` leaves nothing behind whatever the rounds did.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from lib.nemesis_faults import ClockJump, Cut, Fault, FullDisk, Kill, Round, Stop, name_of
from lib.nemesis_host import NemesisHost

from pyswarm.deploy.lab.process import ProcessHandle

WhoLeads = Callable[[], Awaitable[str | None]]


class NemesisDriver:
    def __init__(self, hosts: Sequence[NemesisHost], who_leads: WhoLeads) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._who_leads = who_leads
        self._stopped: list[ProcessHandle] = []
        self._deaf: set[str] = set()
        self._full: set[str] = set()
        self.brought: Counter[str] = Counter()
        """How often each kind of fault was brought."""

    async def run(self, planned: Round) -> None:
        """Bring one round's faults, let them last, end them, and pause."""
        parts = await self._parts()
        cut: dict[str, set[str]] = {}
        for fault in planned.faults:
            self.brought[name_of(fault)] += 1
            if isinstance(fault, Cut):
                for source, target in fault.links:
                    cut.setdefault(parts[target].name, set()).add(parts[source].host.address)
            else:
                await asyncio.to_thread(self._begin, fault, parts)
        # All links at one go, so that two cuts of one round add up.
        for name, addresses in cut.items():
            self._deaf.add(name)
            await asyncio.to_thread(self._hosts[name].drop_from, addresses)
        await asyncio.sleep(planned.seconds)
        await self.heal()
        await asyncio.sleep(planned.pause_seconds)

    async def heal(self) -> None:
        """End every fault that is under way. Clocks stay where they jumped to."""
        await asyncio.to_thread(self._heal)

    async def _parts(self) -> list[NemesisHost]:
        """Return the hosts in the order of the parts they play: the leader first."""
        leader = await self._who_leads()
        return sorted(self._hosts.values(), key=lambda host: (host.name != leader, host.name))

    def _begin(self, fault: Fault, parts: Sequence[NemesisHost]) -> None:
        match fault:
            case Kill(victims):
                for part in victims:
                    parts[part].signal(signal.SIGKILL)
            case Stop(victims):
                for part in victims:
                    process = parts[part].signal(signal.SIGSTOP)
                    if process is not None:
                        self._stopped.append(process)
            case FullDisk(victims, is_killed):
                for part in victims:
                    self._full.add(parts[part].name)
                    parts[part].fill_disk()
                    if is_killed:
                        parts[part].signal(signal.SIGKILL)
            case ClockJump(part, seconds):
                parts[part].jump_clock(seconds)

    def _heal(self) -> None:
        for name in self._deaf:
            self._hosts[name].drop_from(())
        for name in self._full:
            self._hosts[name].free_disk()
        for process in self._stopped:
            process.send(signal.SIGCONT)
        self._deaf.clear()
        self._full.clear()
        self._stopped.clear()
