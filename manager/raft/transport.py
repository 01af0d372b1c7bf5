"""Streams between managers: TLS 1.3, both certificates required, one stream in each direction.

Every member dials every other and only sends on what it dialled; it only receives on what it accepted. The first
frame says who dials; the certificate must say the same (CN = node id, OU = swarm-manager, O = our cluster), so no
claimed name is believed. Contexts are fetched for each connection, so renewed certificates are taken up. What is
sent while there is no link is dropped: consensus asks again. Messages: codec.py; what they mean: guard.py.

Nothing is said on a stream that was accepted, with one exception: a manager whose node was removed from the cluster
is told so. It would go on by its old list of members otherwise, and two of those make a second cluster.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

from pyswarm.manager.raft.codec import BadMessage, FrameReader, Hello, Message, Removed, decode, encode_frame
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import TlsProvider
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import NodeRemoved, PermissionDenied, SwarmError, Unavailable
from pyswarm.proto.identity import NodeIdentity, identity_of
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.states import Role
from pyswarm.proto.roles import MANAGER_NAME

log = get_logger(__name__)

PROTOCOL = 1
SEND_BUFFER_BYTES = 32 * 1024 * 1024
"""A link that is behind by more is cut; consensus asks again on the next one."""

HANDSHAKE_SECONDS = 5.0
CONNECT_SECONDS = 3.0
SILENT_SECONDS = 3
"""A link whose bytes are not acknowledged for this long is dead, whatever the kernel would still try."""

STRANGERS_MAX = 16
ACCEPT_AGAIN_SECONDS = 0.5
"""How long nothing is accepted after accepting failed: mostly because no descriptor is left."""

WAITING_MAX = 100
"""Connections that the kernel keeps until they are accepted."""

REDIAL = Backoff(first_seconds=0.05, cap_seconds=0.5)


class LinkHandler(Protocol):
    """What the transport tells; every call on the event loop."""

    def admit(self, member: Member) -> str:
        """Return why `member`, whose certificate is good, may not talk to us; "" when it may."""

    def received(self, member: Member, message: Message) -> None:
        """Raises BadMessage to have the link closed."""

    def link_up(self, raft_id: str) -> None: ...

    def link_down(self, raft_id: str) -> None: ...

    def told_removed(self, by: Member) -> None:
        """A manager of our cluster refuses us, because our node was removed."""


class TlsTransport:
    """Implements `guard.Network`."""

    def __init__(
        self,
        *,
        member: Member,
        cluster_id: str,
        tls: TlsProvider,
        listen: tuple[str, int],
        handler: LinkHandler,
        entropy: Entropy,
        is_removed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`is_removed` tells whether a node's certificates are refused; asked at each new link, in both directions."""
        self._is_removed = is_removed
        self._self = member
        self._cluster_id = cluster_id
        self._tls = tls
        self._listen = listen
        self._handler = handler
        self._entropy = entropy
        self._peers: dict[str, _Peer] = {}
        self._unwritten: list[_Peer] = []
        """Who was sent something in this step of the loop."""
        self._strangers: set[str] = set()
        self._accepted: set[_Incoming] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._is_closed = False

    # -- life

    async def bind(self) -> None:
        """Take the port; nothing is accepted before `run`. Raises Unavailable when it is not to be had."""
        host, port = self._listen
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = found[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            listener.close()
            raise self._unusable(error) from error
        self._listener = listener

    def _unusable(self, error: OSError) -> Unavailable:
        host, port = self._listen
        return Unavailable(
            f"the raft port {host}:{port} cannot be used: {error.strerror or error}",
            remedy="Stop what uses it, or let this node listen on another address.",
        )

    async def run(self) -> None:
        """Accept and dial until cancelled."""
        listener = self._listener
        assert listener is not None, "bind comes first"
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for peer in list(self._peers.values()):
                    peer.start(group)
                listener.listen(WAITING_MAX)
                self._accepting = group.create_task(self._accept(listener, group), name="raft-accept")
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self.close()

    def close(self) -> None:
        """Cut every link at once. May be called again."""
        self._is_closed = True
        if self._accepting is not None:
            # It closes the listener: the loop watches that until the task has gone.
            self._accepting.cancel()
        elif self._listener is not None:
            self._listener.close()
        for incoming in list(self._accepted):
            incoming.abort()
        for raft_id in list(self._peers):
            self._remove(raft_id)

    # -- guard.Network

    def send(self, raft_id: str, message: Message) -> None:
        peer = self._peers.get(raft_id)
        if peer is not None:
            peer.send(message)

    def flush(self) -> None:
        """Write what was sent in this step of the loop; what nobody flushes is written in the next one.

        Together and last: a write wakes the other side, which takes the processor from what is still to be done here,
        and costs more than the frame itself.
        """
        peers, self._unwritten = self._unwritten, []
        for peer in peers:
            peer.write_frames()

    def flush_later(self, peer: "_Peer") -> None:
        """`peer` has something to write."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unwritten.append(peer)

    def add_peer(self, member: Member) -> None:
        """Keep a link to `member` from now on."""
        self._strangers.discard(member.raft_id)
        self._add(member)

    def move_peer(self, member: Member) -> None:
        """Dial `member` at its new address, if it is dialled at all."""
        peer = self._peers.get(member.raft_id)
        if peer is not None and peer.member != member:
            self._remove(member.raft_id)
            self._handler.link_down(member.raft_id)
            self._add(member)

    def drop_peer(self, raft_id: str) -> None:
        self._strangers.discard(raft_id)
        self._remove(raft_id)
        for incoming in [i for i in self._accepted if i.sender is not None and i.sender.raft_id == raft_id]:
            incoming.abort()

    def _add(self, member: Member) -> None:
        if member.raft_id == self._self.raft_id or member.raft_id in self._peers or self._is_closed:
            return
        peer = self._peers[member.raft_id] = _Peer(self, member)
        if self._group is not None:
            peer.start(self._group)

    def _remove(self, raft_id: str) -> None:
        peer = self._peers.pop(raft_id, None)
        if peer is not None:
            peer.stop()

    # -- what the links use

    async def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    log.warning("no connection between managers can be accepted", reason=_reason(error))
                    await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                else:
                    group.create_task(self._secure(connection), name="raft-handshake")

    async def _secure(self, connection: socket.socket) -> None:
        """Do the handshake of an accepted connection, as its server; `accepted` is called when it is done."""
        incoming = _Incoming(self, connection)
        try:
            try:
                _keep_lively(connection)
                context, _ = self._tls()
            except BaseException:
                connection.close()
                raise
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: incoming, connection, ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS, ssl_shutdown_timeout=HANDSHAKE_SECONDS,
            )  # fmt: skip
        except (OSError, SwarmError) as error:
            # ssl.SSLError, reset and handshake timeout are all OSError.
            log.warning("connection between managers refused", remote=incoming.remote, reason=_reason(error))

    def accepted(self, incoming: "_Incoming", transport: asyncio.Transport) -> NodeIdentity | Removed | None:
        """Check whose connection it is, by its certificate: return who may go on, the last word to say, or None."""
        if self._is_closed:
            return None
        try:
            identity = self._identity(transport)
        except SwarmError as error:
            log.warning("connection between managers refused", remote=incoming.remote, reason=_reason(error))
            return None
        if self._is_removed(identity.node_id):
            reason = f"node {identity.node_id} was removed from the cluster"
            log.warning("connection between managers refused", remote=incoming.remote, reason=reason)
            return Removed(identity.node_id)
        self._accepted.add(incoming)
        return identity

    def greeted(self, hello: Hello, identity: NodeIdentity) -> None:
        """Check the first frame against the certificate. Raises PermissionDenied."""
        sender = hello.sender
        if hello.protocol != PROTOCOL:
            raise PermissionDenied(f"{sender.node_id} speaks protocol {hello.protocol}, this manager {PROTOCOL}")
        if sender.node_id != identity.node_id:
            raise PermissionDenied(f"node {identity.node_id} claims to be {sender.node_id}")
        if hello.receiver_raft_id != self._self.raft_id:
            raise PermissionDenied(f"{sender.node_id} looks for an earlier membership of this node")
        if sender.raft_id == self._self.raft_id:
            raise PermissionDenied(f"{sender.node_id} claims this member's own raft id")
        refusal = self._handler.admit(sender)
        if refusal:
            raise PermissionDenied(refusal)
        if sender.raft_id not in self._peers:
            if len(self._strangers) >= STRANGERS_MAX:
                raise PermissionDenied(f"{sender.node_id} is one unknown manager too many")
            self._strangers.add(sender.raft_id)
            self._add(sender)
        else:
            self.move_peer(sender)
            self._peers[sender.raft_id].has_shown_itself()

    def receive(self, sender: Member, frame: bytes) -> None:
        message = decode(frame)
        if isinstance(message, Hello | Removed):
            raise BadMessage(f"{sender.node_id} says what is not said on a stream under way")
        self._handler.received(sender, message)

    def closed(self, incoming: "_Incoming") -> None:
        self._accepted.discard(incoming)
        sender = incoming.sender
        if sender is not None and sender.raft_id in self._strangers:
            self._strangers.discard(sender.raft_id)
            self._remove(sender.raft_id)

    async def dial(self, peer: "_Peer") -> None:
        """Keep a link to one peer: dial, wait until it is lost, dial again."""
        loop = asyncio.get_running_loop()
        member = peer.member
        attempt = 0
        told = ""
        while True:
            try:
                host, _, port = member.raft_addr.rpartition(":")
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, context = self._tls()
                    transport, outgoing = await loop.create_connection(
                        _Outgoing, host.strip("[]"), int(port), ssl=context, server_hostname=MANAGER_NAME
                    )
                try:
                    self._check_dialled(member, transport)
                    _keep_lively(transport.get_extra_info("socket"))
                    transport.write(encode_frame(Hello(PROTOCOL, self._self, member.raft_id)))
                    began = loop.time()
                    peer.linked(transport)
                    await outgoing.lost
                    if outgoing.answer == Removed(self._self.node_id):
                        self._handler.told_removed(member)
                    attempt = 0 if loop.time() - began > 1.0 else attempt + 1
                    told = ""
                finally:
                    peer.unlinked()
                    if not peer.is_stopped:
                        transport.abort()
            except (OSError, SwarmError, ValueError, OverflowError) as error:
                # TimeoutError and ssl.SSLError are OSError; what another member gave as its address may be none.
                # Said once, not at every attempt.
                if _reason(error) != told:
                    told = _reason(error)
                    log.warning("manager not reached", node=member.node_id, addr=member.raft_addr, reason=told)
                attempt += 1
            await peer.rest(REDIAL.delay_seconds(attempt, self._entropy.uniform(0, 1)))

    def _check_dialled(self, member: Member, transport: asyncio.Transport) -> None:
        identity = self._identity(transport)
        if identity.node_id != member.node_id:
            raise PermissionDenied(f"node {identity.node_id}, not {member.node_id}, answers at {member.raft_addr}")
        if self._is_removed(identity.node_id):
            raise NodeRemoved(f"node {identity.node_id} was removed from the cluster")

    def _identity(self, transport: asyncio.Transport) -> NodeIdentity:
        connection: ssl.SSLObject = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True)
        if certificate is None:
            raise PermissionDenied("the peer showed no certificate")
        identity = identity_of(ssl.DER_cert_to_PEM_cert(certificate).encode())
        if identity.cluster_id != self._cluster_id:
            raise PermissionDenied(f"node {identity.node_id} belongs to the cluster {identity.cluster_id}")
        if identity.role is not Role.MANAGER:
            raise PermissionDenied(f"node {identity.node_id} is no manager")
        return identity

    def link_up(self, raft_id: str) -> None:
        self._handler.link_up(raft_id)

    def link_down(self, raft_id: str) -> None:
        if not self._is_closed:
            self._handler.link_down(raft_id)


class _Peer:
    """Somebody to dial, and the link to it while there is one."""

    def __init__(self, owner: TlsTransport, member: Member) -> None:
        self._owner = owner
        self.member = member
        self._transport: asyncio.Transport | None = None
        self._frames: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._is_there = asyncio.Event()
        self.is_stopped = False

    async def rest(self, seconds: float) -> None:
        """Wait before dialling again; no longer once the other side has dialled here, for then it is there."""
        self._is_there.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_there.wait()

    def has_shown_itself(self) -> None:
        self._is_there.set()

    def start(self, group: asyncio.TaskGroup) -> None:
        self._task = group.create_task(self._owner.dial(self), name=f"raft-dial-{self.member.node_id}")

    def stop(self) -> None:
        self.is_stopped = True
        if self._transport is not None:
            # What was said last (a hand-over, a farewell) still goes out.
            self.write_frames()
            self._transport.close()
        if self._task is not None:
            self._task.cancel()

    def send(self, message: Message) -> None:
        transport = self._transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > SEND_BUFFER_BYTES:
            log.warning("manager does not keep up: link cut", node=self.member.node_id)
            transport.abort()
            self.unlinked()
            return
        self._frames.append(encode_frame(message))
        if len(self._frames) == 1:
            self._owner.flush_later(self)

    def write_frames(self) -> None:
        frames, self._frames = self._frames, []
        if self._transport is not None and frames:
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def linked(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._owner.link_up(self.member.raft_id)

    def unlinked(self) -> None:
        if self._transport is not None:
            self._transport = None
            self._frames.clear()
            if not self.is_stopped:
                self._owner.link_down(self.member.raft_id)


class _Outgoing(asyncio.Protocol):
    """A dialled connection; the other side says nothing on it, or one last word."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: Hello | Removed | Message | None = None
        self._transport: asyncio.BaseTransport | None = None
        self._frames = FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            frames = self._frames.feed(data)
            self.answer = decode(frames[0]) if frames else None
        except BadMessage as error:
            log.warning("connection between managers refused", reason=error.message)
        self._transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.lost.done():
            self.lost.set_result(None)


class _Incoming(asyncio.Protocol):
    """An accepted connection, from the end of its handshake on: a greeting, then messages."""

    def __init__(self, owner: TlsTransport, connection: socket.socket) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._identity: NodeIdentity | None = None
        self._frames = FrameReader()
        self.remote = _remote(connection)
        self.sender: Member | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = made = cast("asyncio.Transport", transport)
        match self._owner.accepted(self, made):
            case NodeIdentity() as identity:
                self._identity = identity
            case Removed() as last_word:
                made.write(encode_frame(last_word))
                made.close()
            case None:
                made.abort()

    def data_received(self, data: bytes) -> None:
        if self._identity is None:
            # Nothing is looked at that comes from who is hung up on.
            return
        try:
            for frame in self._frames.feed(data):
                if self.sender is None:
                    self._greet(frame)
                else:
                    self._owner.receive(self.sender, frame)
        except (BadMessage, PermissionDenied) as error:
            log.warning(
                "connection between managers refused",
                remote=self.remote,
                node=self._identity.node_id,
                reason=error.message,
            )
            self.abort()

    def _greet(self, frame: bytes) -> None:
        assert self._identity is not None
        hello = decode(frame)
        if not isinstance(hello, Hello):
            raise BadMessage("a stream does not begin with a greeting")
        self._owner.greeted(hello, self._identity)
        self.sender = hello.sender

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._owner.closed(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _keep_lively(connection: socket.socket) -> None:
    """Let the kernel notice a peer that is gone without a word: a cut cable, a machine that lost power."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)


def _remote(connection: socket.socket) -> str:
    try:
        host, port, *_ = connection.getpeername()
    except OSError:
        # It has gone already.
        return "?"
    return f"{host}:{port}"


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, SwarmError) else str(error) or type(error).__name__
