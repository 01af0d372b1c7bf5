"""One manager, composed: consensus under a store, the API's doors on top, the leader's loops while it leads."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

import grpc.aio
import msgspec

from pyswarm.manager.agreement import Agreement
from pyswarm.manager.api.ca import BootstrapServicer, CAServicer
from pyswarm.manager.api.control import ControlServicer
from pyswarm.manager.api.dispatcher import DispatcherEdge, DispatcherServicer
from pyswarm.manager.api.logs import LogBroker, LogBrokerServicer, LogsServicer
from pyswarm.manager.api.raft import PingServicer, RaftMembershipServicer, member_of, message_of
from pyswarm.manager.api.raft_status import CONFIRM_TIMEOUT_SECONDS, RaftOperationsServicer
from pyswarm.manager.autolock import Autolock
from pyswarm.manager.config import ManagerConfig
from pyswarm.manager.initial_objects import initial_objects_file, read_initial_objects
from pyswarm.manager.leader.aside import DecisionThread
from pyswarm.manager.leader.loop import lead
from pyswarm.manager.leader.tenure import during_leadership, follow_addresses
from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.sealing.keys import NO_KEK, Kek, KeyFile, has_key_file, open_key_file
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.checkpoints import Checkpoint
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.codec.messages import from_message
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import ManagerStatus, Node, Object
from pyswarm.proto.model.states import Reachability
from pyswarm.proto.rpc.client import open_channel
from pyswarm.proto.rpc.forward import LeaderForwarder
from pyswarm.proto.rpc.server import AddServicer, Door, Gate, add_secure_port, build_server, serve_unix
from pyswarm.proto.rpc.tls import bootstrap_credentials, channel_credentials, raft_ssl_contexts, server_credentials
from pyswarm.proto.supervisor_client import tell_supervisor
from pyswarm.proto.unlock_key import format_unlock_key
from pyswarm.proto.v1 import (
    ca_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    dispatcher_pb2_grpc,
    logs_pb2_grpc,
    raft_pb2,
    raft_pb2_grpc,
)
from pyswarm.proto.v1.raft_pb2_grpc import RaftMembershipStub as MembershipStub

T = TypeVar("T")

log = get_logger(__name__)

JOIN_BACKOFF = Backoff(first_seconds=0.2, cap_seconds=2.0)
STOP_SECONDS = 1.0
"""How long open calls may take to end when the daemon stops."""

HAND_OVER_SECONDS = 3.0


class ManagerDaemon:
    def __init__(self, config: ManagerConfig, unlock_keys: Sequence[bytes] = ()) -> None:
        """`unlock_keys`: what may open this manager's state; in a new cluster, what locks it from the beginning."""
        self._config = config
        self._unlock_keys = unlock_keys
        self._member = Member(config.raft_id, config.node_id, config.raft_addr, config.api_addr)
        self._store = Store()
        self._broker = LogBroker(store=self._store, entropy=SYSTEM_ENTROPY)
        self._edge: DispatcherEdge | None = None
        self._engine: RaftEngine | None = None

    async def run(self) -> None:
        """Run until cancelled. Raises when this manager must stop taking part in consensus."""
        keys = await self._open_keys()
        engine = self._engine = await self._become_a_member(keys)
        # What was restored stays for long: a walk of the collector over a million objects holds up the loop for 0.6 s,
        # which is longer than others wait for a leader.
        gc.freeze()
        try:
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                group.create_task(engine.run(), name="consensus")
                if self._config.join_remote:
                    await self._ask_to_join()
                writer = Writer(engine, self._store, clock=SYSTEM_CLOCK, entropy=SYSTEM_ENTROPY)
                if self._config.is_first:
                    await self._plant_initial_objects(engine, writer, keys.kek)
                lock = Autolock(keys, store=self._store, rotate_data_key=engine.rotate_key, tell=self._tell_keys)
                group.create_task(lock.run(), name="autolock")
                for forwarder in await self._serve(stack, engine, writer):
                    group.create_task(forwarder.follow(self._leaders()), name="follow-leadership")
                lead_on = during_leadership(engine.watch_leadership(), partial(self._lead, engine, writer))
                group.create_task(lead_on, name="leadership")
                group.create_task(self._report_membership(), name="report-membership")
                agreement = Agreement(
                    own_node_id=self._config.node_id,
                    members=engine.members,
                    store=self._store,
                    ask=self._ask_checkpoints,
                )
                group.create_task(agreement.run(), name="compare-states")
        finally:
            await engine.close()

    async def hand_over(self) -> None:
        """Give leadership to another manager before stopping, if there is one."""
        engine = self._engine
        if engine is None or not engine.leadership.is_leader or len(engine.members()) < 2:
            return
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await engine.transfer_leadership()
        except (SwarmError, TimeoutError) as error:
            log.warning("leadership was not handed over", reason=str(error))

    # -- membership

    async def _open_keys(self) -> KeyFile:
        """Return the keys that seal this manager's state; of a new manager they are wrapped from the beginning."""
        config = self._config
        first = NO_KEK
        if not has_key_file(config.sealing) and not RaftEngine.has_state(config.paths.manager / "raft"):
            if config.is_first:
                first = Kek(self._unlock_keys[0]) if self._unlock_keys else first
            else:
                first = await self._ask_managers(_unlock_key, stub=control_pb2_grpc.ControlStub)
                # Before it is needed: whatever ends this process from here on, pyswarmd can start it again.
                await self._tell_keys([first.key] if first.key else [])
        return open_key_file(config.sealing, unlock_keys=self._unlock_keys, first_kek=first)

    async def _become_a_member(self, keys: KeyFile) -> RaftEngine:
        config = self._config
        directory = config.paths.manager / "raft"
        members: tuple[Member, ...] = (self._member,)
        if not config.is_first and not RaftEngine.has_state(directory):
            # Take part first, be counted then: the entry that makes this manager a member may need its own vote.
            members = (*await self._ask_managers(_list_members, stub=MembershipStub), self._member)
        return await RaftEngine.open(
            member=self._member,
            members=members,
            cluster_id=config.cluster_id,
            state_machine=self._store,
            directory=directory,
            sealer=keys.sealer,
            tls=lambda: raft_ssl_contexts(config.paths.certificates),
            listen=config.raft_listen,
            settings=RaftSettings(heartbeat_seconds=config.heartbeat_seconds, election_seconds=config.election_seconds),
            is_removed=self._is_blacklisted,
        )

    async def _ask_to_join(self) -> None:
        """Have the leader make this manager a voter; until then only its dial-back is answered here."""
        config = self._config
        ping = PingServicer(config.node_id)
        gate = Gate(Door.MUTUAL, cluster_id=config.cluster_id)
        server = build_server(gate, [lambda s: raft_pb2_grpc.add_RaftMembershipServicer_to_server(ping, s)])
        add_secure_port(server, config.api_listen, server_credentials(config.paths.certificates))
        await server.start()
        try:
            request = raft_pb2.RaftJoinRequest(member=message_of(self._member))
            await self._ask_managers(lambda stub: stub.Join(request, timeout=20), stub=MembershipStub)
        finally:
            await server.stop(None)
        log.info("joined the managers", raft_id=self._member.raft_id)

    async def _ask_managers(self, ask: Callable[[Any], Awaitable[T]], *, stub: Callable[[grpc.aio.Channel], Any]) -> T:
        """Ask the managers that are known, one after the other, until one answers; `stub` is of the service asked."""
        config = self._config
        remotes = [a for a in dict.fromkeys([config.join_remote, *config.managers]) if a and a != config.api_addr]
        if not remotes:
            raise Unavailable("no manager to join is known", remedy="Leave the cluster and join it again.")
        for attempt in itertools.count():
            remote = remotes[attempt % len(remotes)]
            try:
                async with self._open_api(remote) as channel:
                    return await ask(stub(channel))
            except SwarmError as error:
                log.warning("could not join the managers yet", remote=remote, reason=error.message)
                await asyncio.sleep(JOIN_BACKOFF.delay_seconds(attempt, SYSTEM_ENTROPY.uniform(0, 1)))
        raise AssertionError("unreachable: the loop ends by return")

    async def _plant_initial_objects(self, engine: RaftEngine, writer: Writer, kek: Kek) -> None:
        """The first manager's first entry: what `pyswarm init` made."""
        file = initial_objects_file(self._config.paths)
        if not file.exists():
            return
        objects = read_initial_objects(file, unlock_key=kek.key)
        async for leadership in engine.watch_leadership():
            if leadership.is_ready:
                break
        if self._store.view.cluster is None:
            await writer.write([Create(self._as_member(o)) for o in objects])
        # Holds the root CA's key: once it is in the sealed store, it must not lie beside it.
        file.unlink()

    def _as_member(self, subject: Object) -> Object:
        if isinstance(subject, Node) and subject.id == self._config.node_id:
            status = ManagerStatus(self._member.raft_id, self._member.api_addr, Reachability.REACHABLE)
            return msgspec.structs.replace(subject, manager_status=status)
        return subject

    async def _report_membership(self) -> None:
        """Tell pyswarmd that this manager is a member, so that it is not asked to join again."""
        await tell_supervisor(self._config.paths.supervisor_socket, {"op": "joined"})

    async def _tell_keys(self, keys: Sequence[bytes]) -> None:
        """Have pyswarmd start this manager with these unlock keys if it must; it keeps them in its memory alone."""
        texts = [format_unlock_key(key) for key in keys]
        await tell_supervisor(self._config.paths.supervisor_socket, {"op": "unlock-keys", "keys": texts})

    # -- serving

    async def _serve(
        self, stack: AsyncExitStack, engine: RaftEngine, writer: Writer
    ) -> tuple[LeaderForwarder, LeaderForwarder]:
        """Open the three doors; return what hands calls on to the leader.

        The unix socket comes last: that it answers means the manager is ready.
        """
        config, store = self._config, self._store
        parts: dict[str, Any] = {"store": store, "writer": writer, "clock": SYSTEM_CLOCK, "entropy": SYSTEM_ENTROPY}
        broker = self._broker
        control = ControlServicer(consensus=engine, **parts)
        membership = RaftMembershipServicer(consensus=engine, writer=writer, ping=self._ping)
        operations = RaftOperationsServicer(
            report=engine.report,
            confirm=lambda: engine.read_barrier(timeout_seconds=CONFIRM_TIMEOUT_SECONDS),
            rotate_key=engine.rotate_key,
            members=engine.members,
            store=store,
            ask=self._ask_report,
        )
        for_people: list[AddServicer] = [
            lambda s: control_pb2_grpc.add_ControlServicer_to_server(control, s),
            lambda s: logs_pb2_grpc.add_LogsServicer_to_server(LogsServicer(broker, engine), s),
            lambda s: raft_pb2_grpc.add_RaftMembershipServicer_to_server(membership, s),
            lambda s: raft_pb2_grpc.add_RaftOperationsServicer_to_server(operations, s),
        ]
        for_nodes: list[AddServicer] = [
            lambda s: ca_pb2_grpc.add_CAServicer_to_server(CAServicer(**parts), s),
            lambda s: dispatcher_pb2_grpc.add_DispatcherServicer_to_server(DispatcherServicer(lambda: self._edge), s),
            lambda s: logs_pb2_grpc.add_LogBrokerServicer_to_server(LogBrokerServicer(broker), s),
        ]
        for_strangers: list[AddServicer] = [
            lambda s: ca_pb2_grpc.add_BootstrapServicer_to_server(BootstrapServicer(**parts), s)
        ]
        mutual = LeaderForwarder(self._leadership, self._open_api, refusal=lambda: engine.removal)
        bootstrap = LeaderForwarder(self._leadership, self._open_bootstrap, refusal=lambda: engine.removal)
        gate = Gate(Door.MUTUAL, cluster_id=config.cluster_id, is_blacklisted=self._is_blacklisted)
        certificates = config.paths.certificates
        api = build_server(gate, [*for_people, *for_nodes], interceptors=[mutual])
        add_secure_port(api, config.api_listen, server_credentials(certificates))
        anonymous = build_server(Gate(Door.BOOTSTRAP), for_strangers, interceptors=[bootstrap])
        add_secure_port(anonymous, config.bootstrap_listen, bootstrap_credentials(certificates))
        for server in (api, anonymous):
            await server.start()
            stack.push_async_callback(server.stop, STOP_SECONDS)
        socket = config.paths.manager_socket
        local = await serve_unix(socket, for_people, cluster_id=config.cluster_id, interceptors=[mutual])
        stack.push_async_callback(local.stop, STOP_SECONDS)
        stack.callback(lambda: socket.unlink(missing_ok=True))
        stack.push_async_callback(mutual.close)
        stack.push_async_callback(bootstrap.close)
        log.info("serving", api=config.api_listen, bootstrap=config.bootstrap_listen, node=config.node_id)
        return mutual, bootstrap

    def _leadership(self) -> tuple[bool, str | None]:
        assert self._engine is not None
        leadership = self._engine.leadership
        leader = leadership.leader
        is_here = leadership.is_leader and leadership.is_ready and self._edge is not None
        return is_here, leader.api_addr if leader is not None else None

    async def _leaders(self) -> AsyncIterator[str | None]:
        """Yield the API address of whom this manager takes for the leader, or None, at each change."""
        assert self._engine is not None
        async for leadership in self._engine.watch_leadership():
            yield leadership.leader.api_addr if leadership.leader is not None else None

    def _is_blacklisted(self, node_id: str) -> bool:
        cluster = self._store.view.cluster
        return cluster is not None and cluster.blacklist.get(node_id, 0.0) > SYSTEM_CLOCK.now()

    def _open_api(self, address: str) -> grpc.aio.Channel:
        return open_channel(address, channel_credentials(self._config.paths.certificates))

    def _open_bootstrap(self, address: str) -> grpc.aio.Channel:
        host, _, port = address.rpartition(":")
        return open_channel(f"{host}:{int(port) + 1}", channel_credentials(self._config.paths.certificates))

    async def _ping(self, address: str) -> str:
        async with self._open_api(address) as channel:
            answer = await raft_pb2_grpc.RaftMembershipStub(channel).Ping(raft_pb2.RaftPingRequest(), timeout=5)
            return answer.node_id

    async def _ask_report(self, address: str) -> raft_pb2.RaftMemberReport:
        async with self._open_api(address) as channel:
            stub = raft_pb2_grpc.RaftOperationsStub(channel)
            report: raft_pb2.RaftMemberReport = await stub.Report(raft_pb2.RaftReportRequest(), timeout=5)
            return report

    async def _ask_checkpoints(self, address: str) -> list[Checkpoint]:
        async with self._open_api(address) as channel:
            stub = raft_pb2_grpc.RaftOperationsStub(channel)
            answer: raft_pb2.RaftCheckpoints = await stub.ListCheckpoints(raft_pb2.RaftCheckpointsRequest(), timeout=5)
            return [from_message(c, Checkpoint) for c in answer.checkpoints]

    # -- leading

    async def _lead(self, engine: RaftEngine, writer: Writer, term: int) -> None:
        """Run the leader's loops until cancelled."""
        log.info("leading", term=term)
        parts: dict[str, Any] = {"store": self._store, "writer": writer, "clock": SYSTEM_CLOCK}
        edge = self._edge = DispatcherEdge(entropy=SYSTEM_ENTROPY, **parts)
        also = [edge.run, lambda: follow_addresses(engine.watch_members(), writer)]
        aside = DecisionThread("decisions")
        try:
            await lead(entropy=SYSTEM_ENTROPY, consensus=engine, aside=aside, also=also, **parts)
        finally:
            aside.close()
            log.info("no longer leading", term=term)
            self._edge = None
            self._broker.end_all()


async def _list_members(stub: Any) -> tuple[Member, ...]:
    answer = await stub.ListMembers(raft_pb2.RaftListMembersRequest(), timeout=10)
    return tuple(member_of(m) for m in answer.members)


async def _unlock_key(stub: Any) -> Kek:
    answer = await stub.GetUnlockKey(control_pb2.GetUnlockKeyRequest(), timeout=10)
    return Kek(answer.key, answer.version)
