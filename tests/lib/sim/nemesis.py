"""Do harm to a simulated group, and undo it: one fault at a time, drawn from the seed, several in force at once.

What is never done: damage to a majority's disks at one time. No consensus survives that, and none promises to.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from lib.sim.disk import UNLIMITED
from lib.sim.host import SimEngine, SimHost
from lib.sim.mixes import Mix
from lib.sim.network import SimNetwork

from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.wal_reading import FRAME, HEADER_BYTES
from pyswarm.proto.errors import SwarmError, Unavailable

Ask = Callable[[SimEngine, Member, str], Awaitable[None]]
"""Ask the leader's engine for a change that concerns (the member as it is now, its raft id before)."""


class Group(Protocol):
    rng: random.Random
    network: SimNetwork
    hosts: list[SimHost]
    mix: Mix

    def trace(self, *event: object) -> None: ...

    def leader(self) -> SimHost | None: ...


class Nemesis:
    def __init__(self, group: Group) -> None:
        self._group = group
        self._rng = random.Random(group.rng.random())
        self._replacing: asyncio.Task[None] | None = None
        self._leaving: SimHost | None = None
        self.counts: dict[str, int] = {}

    async def rage(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(self._rng.uniform(*self._group.mix.fault_seconds))
            if self._rng.random() < 0.35:
                self._undo_something()
                continue
            name = self._rng.choice(self._group.mix.faults)
            if getattr(self, f"_{name.replace(' ', '_')}")():
                self._group.trace("fault", name)
                self.counts[name] = self.counts.get(name, 0) + 1

    def make_peace(self) -> None:
        """Undo everything that is not a crash or damage: `restore_everybody` is for those."""
        self._group.network.heal()
        self._group.network.calm_down()
        for host in self._group.hosts:
            host.resume()
            host.disk.fuse = None
            host.disk.capacity = UNLIMITED
            host.disk.syncs_fail = False
            host.stall_until = 0.0

    def restore_everybody(self) -> bool:
        """Start who is down, have replaced who is damaged; return whether nobody needs it any more."""
        for host in self._group.hosts:
            if host.process is not None or host is self._leaving:
                continue
            if not host.is_damaged:
                self.mend(host)
                host.start()
            elif not self.is_replacing():
                self.begin_to_replace(host)
        return not self.is_replacing() and all(host.is_up for host in self._group.hosts)

    # -- links

    def _part(self) -> bool:
        names = [host.name for host in self._group.hosts]
        self._rng.shuffle(names)
        middle = self._rng.randint(1, len(names) - 1)
        self._group.network.part([names[:middle], names[middle:]])
        return True

    def _isolate_leader(self) -> bool:
        leader = self._group.leader()
        if leader is not None:
            rest = [host.name for host in self._group.hosts if host is not leader]
            self._group.network.part([[leader.name], rest])
        return leader is not None

    def _one_way(self) -> bool:
        source, target = self._rng.sample(self._group.hosts, 2)
        self._group.network.cut.add((source.name, target.name))
        return True

    def _break_links(self) -> bool:
        host = self._some_up()
        if host is not None and host.process is not None and hasattr(host.process, "transport"):
            host.process.transport.break_links()
        return host is not None

    # -- processes

    def _pause(self) -> bool:
        host = self._some_up()
        if host is not None:
            host.pause()
            loop = asyncio.get_running_loop()
            loop.call_at(loop.time() + self._rng.uniform(0.2, 2.0), host.resume)
        return host is not None

    def _kill(self) -> bool:
        return self._crash(power=False)

    def _power_cut(self) -> bool:
        if self._rng.random() < 0.1:
            # The whole house goes dark.
            for host in self._group.hosts:
                host.crash(power=True)
            return True
        return self._crash(power=True)

    def _crash(self, *, power: bool) -> bool:
        host = self._some_up()
        if host is not None:
            host.crash(power=power)
        return host is not None

    def _fuse(self) -> bool:
        host = self._some_up()
        if host is not None:
            host.disk.fuse = self._rng.randint(1, 25)
            host.may_fail = True
        return host is not None

    # -- disks

    def _stall(self) -> bool:
        host = self._rng.choice(self._group.hosts)
        host.stall_until = asyncio.get_running_loop().time() + self._rng.uniform(0.2, 1.5)
        return True

    def _full(self) -> bool:
        host = self._some_up()
        if host is not None:
            host.may_fail = True
            host.disk.capacity = host.disk.used + self._rng.randint(0, 6000)
        return host is not None

    def _sync_error(self) -> bool:
        host = self._some_up()
        if host is not None:
            host.may_fail = True
            host.disk.syncs_fail = True
        return host is not None

    def _flip(self) -> bool:
        """Flip a bit of what a stopped member has written, if all others are whole."""
        if any(h.is_damaged for h in self._group.hosts) or self.is_replacing():
            return False
        down = [host for host in self._group.hosts if host.process is None]
        places = [(host, *place) for host in down for place in written(host)]
        if not places:
            return False
        host, name, start, end = self._rng.choice(places)
        host.disk.flip_bit(name, self._rng.randrange(start, end))
        host.is_damaged = True
        return True

    def _rotate_key(self) -> bool:
        """Have a member seal under a new data key from now on; it may die on the way."""
        host = self._some_up()
        if host is None or host.engine is None:
            return False
        host.may_fail = host.may_fail or host.disk.is_treacherous
        host.serve(_in_peace(host.engine.rotate_key))
        return True

    # -- members

    def _hand_over(self) -> bool:
        leader = self._group.leader()
        if leader is not None and leader.engine is not None:
            leader.serve(_in_peace(leader.engine.transfer_leadership))
        return leader is not None

    def _move(self) -> bool:
        """Have a machine come back under another address, one at a time: when everybody knows where everybody is."""
        hosts = self._group.hosts
        booked = {host.member for host in hosts}
        if self.is_replacing() or any(host.engine is None or set(host.engine.members()) != booked for host in hosts):
            return False
        host = self._rng.choice(hosts)
        host.crash(power=False)
        host.move()
        return True

    def _replace(self) -> bool:
        """Remove a member for good; its host comes back as another one."""
        if self.is_replacing() or any(host.is_damaged for host in self._group.hosts):
            return False
        self.begin_to_replace(self._rng.choice(self._group.hosts))
        return True

    def is_replacing(self) -> bool:
        return self._leaving is not None

    def begin_to_replace(self, host: SimHost) -> None:
        self._leaving = host
        self._replacing = asyncio.get_running_loop().create_task(self._replace_host(host))

    async def _replace_host(self, host: SimHost) -> None:
        """Have `host` removed, wiped and added again under a new raft id, however long it takes."""
        old = host.member
        if host.is_damaged and host.process is None:
            # Damage must be seen: the host tells the world if it is believed.
            await asyncio.wait({host.start()})
        await self._until_done(_remove, host, old.raft_id)
        host.crash(power=False)
        host.reborn()
        self._group.trace("reborn", host.name, host.member.raft_id)
        host.start()
        await self._until_done(_add, host, old.raft_id)
        self._leaving = None

    async def _until_done(self, ask: Ask, host: SimHost, raft_id: str) -> None:
        """Ask whoever leads until its committed members are as asked for."""
        while True:
            leader = self._group.leader()
            if leader is not None and leader.engine is not None:
                if leader is host:
                    leader.serve(_in_peace(leader.engine.transfer_leadership))
                else:
                    task = leader.serve(_in_peace(partial(ask, leader.engine, host.member, raft_id)))
                    await asyncio.wait({task}, timeout=3.0)
                    if task.done() and not task.cancelled() and task.result():
                        return
            if host.process is None and host.member.raft_id != raft_id:
                host.start()
            await asyncio.sleep(self._rng.uniform(0.1, 0.4))

    # -- undoing

    def _undo_something(self) -> None:
        network = self._group.network
        down = [h for h in self._group.hosts if h.process is None and not h.is_damaged and h is not self._leaving]
        damaged = [h for h in self._group.hosts if h.is_damaged]
        if network.cut and self._rng.random() < 0.5:
            network.heal()
        elif damaged and not self.is_replacing() and self._rng.random() < 0.5:
            self.begin_to_replace(damaged[0])
        elif down:
            host = self._rng.choice(down)
            self.mend(host)
            host.start()

    @staticmethod
    def mend(host: SimHost) -> None:
        """Give a stopped host a good disk again; one whose syncs failed has lost what it could not write."""
        if host.disk.syncs_fail:
            host.disk.cut_power()
        host.disk.syncs_fail = False
        host.disk.capacity = UNLIMITED

    def _some_up(self) -> SimHost | None:
        up = [host for host in self._group.hosts if host.is_up and not host.is_paused]
        return self._rng.choice(up) if up else None


async def _remove(engine: SimEngine, _: Member, old: str) -> None:
    if any(member.raft_id == old for member in engine.members()):
        await engine.remove_member(old)
    await _is_committed(engine)


async def _add(engine: SimEngine, member: Member, _: str) -> None:
    if member not in engine.members():
        await engine.add_member(member)
    await _is_committed(engine)


async def _is_committed(engine: SimEngine) -> None:
    """What a leader's log says of its members counts once it is committed. Raises SwarmError while it is not."""
    await engine.read_barrier(timeout_seconds=1.5)
    if engine._state.members.last_change_index() > engine._guard.committed:
        raise Unavailable("the last change of members is not committed yet")


async def _in_peace(work: Callable[[], Awaitable[None]]) -> bool:
    """Whether it succeeded; a refusal is an answer too."""
    try:
        await work()
    except SwarmError:
        return False
    return True


def written(host: SimHost) -> list[tuple[str, int, int]]:
    """Return (file, start, end) of what a start must read and cannot take for a torn end: a flip there must be seen."""
    disk = host.disk
    snapshots = sorted(n for n in disk.names if "/snapshot-" in n and not n.endswith(".new"))
    places = [(n, 0, len(disk.names[n].content)) for n in snapshots[-1:]]
    segments = sorted(name for name in disk.names if name.endswith(".wal"))
    for segment in segments:
        content = disk.names[segment].content
        ends = [HEADER_BYTES]
        while ends[-1] + FRAME.size <= len(content):
            length, inverse, _, _ = FRAME.unpack_from(content, ends[-1])
            end = ends[-1] + FRAME.size + length
            if length ^ inverse != 0xFFFFFFFF or end > len(content):
                break
            ends.append(end)
        # The last frame of the last segment may be torn, or vanish as if it were.
        if segment == segments[-1]:
            ends = ends[:-1]
        if len(ends) > 1 and ends[-1] > HEADER_BYTES:
            places.append((segment, 0, ends[-1]))
    return places
