"""The streams between members, in memory: the real frames, delivered late, never, twice or in another order.

Two manners. An orderly link is what TCP gives: what arrives does so in order, and after one lost message nothing
follows until the sender has noticed and dialled again. A wild link loses, doubles and reorders single messages
although it stays up: more than a transport of ours would do, and consensus must bear it.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from msgspec import Struct

from pyswarm.manager.raft.codec import BadMessage, Hello, Message, decode, encode_frame
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.transport import SILENT_SECONDS, LinkHandler

FRAME_LENGTH_BYTES = 4


class Place(Protocol):
    """Where a transport lives: a host, as the network sees it."""

    name: str
    is_up: bool

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call in this host's own context."""


class Weather(Struct, frozen=True, kw_only=True):
    """What happens to messages on links that are not cut."""

    delay_seconds: tuple[float, float] = (0.0002, 0.005)
    slow_chance: float = 0.0
    """A message that takes up to a second."""
    is_wild: bool = False
    lost_chance: float = 0.0
    twice_chance: float = 0.0
    overtakes_chance: float = 0.0
    """A message that does not wait for those sent before it."""


CALM = Weather()


class SimNetwork:
    def __init__(self, rng: random.Random, weather: Weather, trace: Callable[..., None]) -> None:
        self.rng = rng
        self.weather = weather
        self.trace = trace
        self.cut: set[tuple[str, str]] = set()
        """Directions in which nothing arrives: (from, to), by host name."""
        self._listening: dict[str, SimTransport] = {}
        self.delivered = 0

    def listen(self, address: str, transport: "SimTransport") -> None:
        self._listening[address] = transport

    def silence(self, address: str, transport: "SimTransport") -> None:
        if self._listening.get(address) is transport:
            del self._listening[address]

    def at(self, address: str) -> "SimTransport | None":
        return self._listening.get(address)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self.cut

    def part(self, groups: Iterable[Iterable[str]]) -> None:
        """Cut both directions between hosts of different groups."""
        groups = [list(group) for group in groups]
        for here in groups:
            for there in groups:
                if here is not there:
                    self.cut.update((a, b) for a in here for b in there)

    def heal(self) -> None:
        self.cut.clear()

    def calm_down(self) -> None:
        """From now on links are as orderly as TCP's: progress is promised on those."""
        self.weather = CALM


class SimTransport:
    """Takes the place of `transport.TlsTransport` in one incarnation of a member."""

    def __init__(self, network: SimNetwork, place: Place, member: Member, handler: LinkHandler) -> None:
        self.network = network
        self.place = place
        self.member = member
        self.handler = handler
        self.is_closed = False
        self._is_running = False
        self._peers: dict[str, _Peer] = {}
        self._strangers: set[str] = set()
        self.incoming: list[_Session] = []

    # -- what the engine calls

    async def run(self) -> None:
        self._is_running = True
        self.network.listen(self.member.raft_addr, self)
        for peer in list(self._peers.values()):
            peer.dial_later()
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.network.silence(self.member.raft_addr, self)
        for session in list(self.incoming):
            session.reset()
        for raft_id in list(self._peers):
            self._remove(raft_id)

    def add_peer(self, member: Member) -> None:
        self._strangers.discard(member.raft_id)
        self._add(member)

    def move_peer(self, member: Member) -> None:
        peer = self._peers.get(member.raft_id)
        if peer is not None and peer.member != member:
            self._remove(member.raft_id)
            self.handler.link_down(member.raft_id)
            self._add(member)

    def drop_peer(self, raft_id: str) -> None:
        self._strangers.discard(raft_id)
        self._remove(raft_id)
        for session in [s for s in self.incoming if s.sender.raft_id == raft_id]:
            session.reset()

    def send(self, raft_id: str, message: Message) -> None:
        peer = self._peers.get(raft_id)
        if peer is not None and peer.session is not None:
            peer.session.send(encode_frame(message))

    def flush(self) -> None:
        """What was sent is on its way already."""

    # -- what sessions call

    def greeted(self, sender: Member, receiver_raft_id: str) -> bool:
        if self.is_closed or not self._is_running or receiver_raft_id != self.member.raft_id:
            return False
        if self.handler.admit(sender):
            return False
        if sender.raft_id not in self._peers:
            self._strangers.add(sender.raft_id)
            self._add(sender)
        else:
            self.move_peer(sender)
        return True

    def forget(self, session: "_Session") -> None:
        if session in self.incoming:
            self.incoming.remove(session)
        sender = session.sender.raft_id
        if sender in self._strangers and not any(s.sender.raft_id == sender for s in self.incoming):
            self._strangers.discard(sender)
            self._remove(sender)

    def break_links(self) -> None:
        """Reset every stream this member has dialled."""
        for peer in list(self._peers.values()):
            if peer.session is not None:
                peer.session.reset()

    def _add(self, member: Member) -> None:
        if member.raft_id == self.member.raft_id or member.raft_id in self._peers or self.is_closed:
            return
        peer = self._peers[member.raft_id] = _Peer(self, member)
        if self._is_running:
            peer.dial_later()

    def _remove(self, raft_id: str) -> None:
        peer = self._peers.pop(raft_id, None)
        if peer is not None:
            peer.stop()


class _Peer:
    """Somebody to dial, and the stream to it while there is one."""

    def __init__(self, owner: SimTransport, member: Member) -> None:
        self.owner = owner
        self.member = member
        self.session: _Session | None = None
        self.is_stopped = False
        self._attempt = 0

    def dial_later(self) -> None:
        rng = self.owner.network.rng
        delay = rng.uniform(0.5, 1.0) * min(0.5, 0.01 * 2 ** min(self._attempt, 8))
        self._attempt += 1
        loop = asyncio.get_running_loop()
        self.owner.place.call_at(loop.time() + delay, self._dial)

    def _dial(self) -> None:
        owner = self.owner
        if self.is_stopped or owner.is_closed or self.session is not None:
            return
        target = owner.network.at(self.member.raft_addr)
        here = owner.place.name
        if target is not None:
            there = target.place.name
            if not (owner.network.is_cut(here, there) or owner.network.is_cut(there, here)):
                self.session = _Session(self, target)
                self._attempt = 0
                self.session.send(encode_frame(Hello(1, owner.member, self.member.raft_id)))
                owner.handler.link_up(self.member.raft_id)
                return
        self.dial_later()

    def lost(self) -> None:
        self.session = None
        if not self.is_stopped and not self.owner.is_closed:
            self.owner.handler.link_down(self.member.raft_id)
            self.dial_later()

    def stop(self) -> None:
        self.is_stopped = True
        # What was said last (a hand-over, a farewell) still goes out.
        self.session = None


class _Session:
    """One stream, in one direction."""

    def __init__(self, peer: _Peer, target: SimTransport) -> None:
        self._peer = peer
        self._network = peer.owner.network
        self._source = peer.owner.place
        self._target = target
        self.sender = peer.owner.member
        self._is_broken = False
        self._is_doomed = False
        self._is_greeted = False
        self._arrives_at = 0.0

    def send(self, frame: bytes) -> None:
        if self._is_broken or self._is_doomed:
            return
        network, rng, weather = self._network, self._network.rng, self._network.weather
        is_cut = network.is_cut(self._source.name, self._target.place.name)
        if is_cut or (weather.lost_chance and rng.random() < weather.lost_chance):
            if not weather.is_wild or not self._is_greeted:
                self._doom()
            return
        now = asyncio.get_running_loop().time()
        arrival = now + rng.uniform(*weather.delay_seconds)
        if weather.slow_chance and rng.random() < weather.slow_chance:
            arrival += rng.uniform(0.0, 1.0)
        may_overtake = weather.is_wild and self._is_greeted and rng.random() < weather.overtakes_chance
        if not may_overtake:
            arrival = self._arrives_at = max(arrival, self._arrives_at + 1e-6)
        self._target.place.call_at(arrival, self._deliver, frame)
        if weather.is_wild and self._is_greeted and rng.random() < weather.twice_chance:
            self._target.place.call_at(arrival + rng.uniform(0.0, 1.5), self._deliver, frame)

    def _deliver(self, frame: bytes) -> None:
        network, target = self._network, self._target
        if self._is_broken or self._is_doomed:
            return
        if target.is_closed:
            # Nobody lives there any more: what arrives is answered by a reset.
            self.reset()
            return
        if network.is_cut(self._source.name, target.place.name):
            if not network.weather.is_wild or not self._is_greeted:
                self._doom()
            return
        message = decode(frame[FRAME_LENGTH_BYTES:])
        network.delivered += 1
        if isinstance(message, Hello):
            self._is_greeted = target.greeted(message.sender, message.receiver_raft_id)
            if self._is_greeted:
                target.incoming.append(self)
            else:
                self.reset()
            return
        network.trace("deliver", self._source.name, target.place.name, frame)
        try:
            target.handler.received(self.sender, message)
        except BadMessage:
            self.reset()
            raise

    def _doom(self) -> None:
        """Nothing more arrives on it; the sender notices later, as its kernel would."""
        self._is_doomed = True
        delay = self._network.rng.uniform(0.1, SILENT_SECONDS)
        self._source.call_at(asyncio.get_running_loop().time() + delay, self.reset)

    def reset(self) -> None:
        if self._is_broken:
            return
        self._is_broken = True
        self._target.forget(self)
        if self._peer.session is self:
            # The sender hears of it in its own time, unless it is its own doing.
            self._source.call_at(asyncio.get_running_loop().time(), self._lost)

    def _lost(self) -> None:
        if self._peer.session is self:
            self._peer.lost()
