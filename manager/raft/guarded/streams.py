"""The network between managers: TLS 1.3 streams, both certificates required, one outgoing stream per other member.

What a member sends goes over the stream it opened; what it receives comes over those the others opened. The peer is who its
certificate says (node id, manager, this cluster) and speaks for the raft id that the membership gives that node. Frames are a
length and a body. A stream that does not take what is sent, or falls silent, is dropped and opened again.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress

import msgspec
from cryptography import x509

from pyswarm.manager.raft.guarded.wire import FRAME_BYTES_MAX
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import TlsProvider
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import PermissionDenied, Unavailable
from pyswarm.proto.identity import NodeIdentity, identity_of_subject
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.states import Role

log = get_logger(__name__)

BUFFER_BYTES_MAX = 64 * 1024 * 1024
"""A peer that leaves so much unread is cut off; the core sends again what was lost."""

HANDSHAKE_SECONDS = 5.0
SILENCE_SECONDS = 10.0
USER_TIMEOUT_MS = 2000
RECONNECT = Backoff(first_seconds=0.05, cap_seconds=1.0)
_LENGTH = struct.Struct(">I")


class Streams:
    """Streams to and from the other members. `on_frame`, `on_up` and `on_down` name peers by raft id."""

    def __init__(
        self,
        *,
        own: Member,
        cluster_id: str,
        tls: TlsProvider,
        listen: tuple[str, int],
        on_frame: Callable[[str, bytes], None],
        on_up: Callable[[str], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._own = own
        self._cluster_id = cluster_id
        self._tls = tls
        self._listen = listen
        self._on_frame = on_frame
        self._on_up = on_up
        self._on_down = on_down
        self._members: dict[str, Member] = {}
        self._dialers: dict[str, asyncio.Task[None]] = {}
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._accepted: set[asyncio.StreamWriter] = set()
        self._group: asyncio.TaskGroup | None = None
        self._server: asyncio.Server | None = None

    async def bind(self) -> None:
        """Listen. Raises Unavailable when the port is taken."""
        try:
            self._server = await asyncio.start_server(self._accept, *self._listen, limit=FRAME_BYTES_MAX)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {self._listen[0]}:{self._listen[1]}: {error.strerror}",
                remedy="Is another manager running on this machine? `ss -ltnp` shows it.",
            ) from error

    async def run(self) -> None:
        """Keep streams to every member until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.set_members(tuple(self._members.values()))
            await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in (*self._writers.values(), *self._accepted):
            writer.transport.abort()

    def set_members(self, members: tuple[Member, ...]) -> None:
        """Dial who is new, drop who is gone."""
        self._members = {m.raft_id: m for m in members if m.raft_id != self._own.raft_id}
        if self._group is None:
            return
        for raft_id in set(self._dialers) - set(self._members):
            self._dialers.pop(raft_id).cancel()
        for raft_id in sorted(set(self._members) - set(self._dialers)):
            self._dialers[raft_id] = self._group.create_task(self._dial(raft_id), name=f"dial-{raft_id}")

    def send(self, raft_id: str, body: bytes) -> None:
        """Send a frame if there is a stream; what cannot be sent is lost, as on any network."""
        writer = self._writers.get(raft_id)
        if writer is None or writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
            log.warning("a member does not read what is sent: cutting it off", peer=raft_id)
            writer.transport.abort()
            return
        writer.write(_LENGTH.pack(len(body)) + body)

    # -- outgoing

    async def _dial(self, raft_id: str) -> None:
        attempt = 0
        while True:
            try:
                await self._hold_stream(raft_id)
                attempt = 0
            except (OSError, ssl.SSLError, TimeoutError, PermissionDenied, asyncio.IncompleteReadError) as error:
                log.debug("no stream to a member", peer=raft_id, reason=str(error))
                attempt += 1
            await asyncio.sleep(RECONNECT.delay_seconds(attempt, SYSTEM_ENTROPY.uniform(0, 1)))

    async def _hold_stream(self, raft_id: str) -> None:
        """Open a stream and hold it until it breaks."""
        member = self._members[raft_id]
        host, _, port = member.raft_addr.rpartition(":")
        _, client = self._tls()
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=client)
        try:
            identity = _peer_identity(writer)
            self._check(identity)
            if identity.node_id != member.node_id:
                raise PermissionDenied(f"node {identity.node_id}, not {member.node_id}, answers at {member.raft_addr}")
            _tune(writer)
            hello = msgspec.msgpack.encode({"raft_id": self._own.raft_id})
            writer.write(_LENGTH.pack(len(hello)) + hello)
            await writer.drain()
            self._writers[raft_id] = writer
            self._on_up(raft_id)
            # The other side never sends on this stream: a read ends when it is gone.
            await reader.read(1)
        finally:
            if self._writers.get(raft_id) is writer:
                del self._writers[raft_id]
                self._on_down(raft_id)
            writer.close()

    # -- incoming

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        try:
            server, _ = self._tls()
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await writer.start_tls(server)
                identity = _peer_identity(writer)
                self._check(identity)
                hello = msgspec.msgpack.decode(await _frame(reader))
                raft_id = self._raft_id(identity, hello)
            _tune(writer)
        except (OSError, TimeoutError, PermissionDenied, asyncio.IncompleteReadError, ValueError) as error:
            log.warning("raft connection refused", peer=peer, reason=str(error) or type(error).__name__)
            writer.transport.abort()
            return
        self._accepted.add(writer)
        try:
            while True:
                self._on_frame(raft_id, await _frame(reader))
        except (OSError, asyncio.IncompleteReadError):
            log.debug("a member's stream ended", peer=raft_id)
        except ValueError as error:
            log.warning("raft connection refused", peer=peer, reason=str(error))
        finally:
            self._accepted.discard(writer)
            writer.transport.abort()

    def _check(self, identity: NodeIdentity) -> None:
        if identity.cluster_id != self._cluster_id:
            raise PermissionDenied(f"the certificate is of cluster {identity.cluster_id}, not {self._cluster_id}")
        if identity.role is not Role.MANAGER:
            raise PermissionDenied(f"node {identity.node_id} is a {identity.role.name.lower()}, not a manager")

    def _raft_id(self, identity: NodeIdentity, hello: object) -> str:
        """Return the raft id the peer speaks for. A known one must be its node's own."""
        raft_id = hello.get("raft_id") if isinstance(hello, dict) else None
        if not isinstance(raft_id, str) or not raft_id.isalnum():
            raise PermissionDenied("the peer does not say who it is")
        known = self._members.get(raft_id)
        if raft_id == self._own.raft_id or (known is not None and known.node_id != identity.node_id):
            raise PermissionDenied(f"node {identity.node_id} is not member {raft_id}")
        return raft_id


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes is too long")
    return await reader.readexactly(length)


def _peer_identity(writer: asyncio.StreamWriter) -> NodeIdentity:
    presented = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if presented is None:
        raise PermissionDenied("no certificate")
    return identity_of_subject(x509.load_der_x509_certificate(presented).subject)


def _tune(writer: asyncio.StreamWriter) -> None:
    """Small frames at once, and a dead peer noticed within seconds although nothing is read from it."""
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
