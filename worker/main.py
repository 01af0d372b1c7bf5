"""The worker daemon: composes agent, network, runtime client and session, and owns their tasks.

    python -m pyswarm.worker.main --root ROOT

SIGTERM ends the daemon and leaves every container running. SIGUSR1 (sent by pyswarmd for `pyswarm leave`) says
goodbye to the managers, removes this node's containers and network, and ends.
"""

import argparse
import asyncio
import gc
import json
import signal
import sys
import tomllib
from functools import partial
from typing import Any

from pyswarm.proto import log as logging
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.errors import FailedPrecondition, SwarmError
from pyswarm.proto.model.states import Role
from pyswarm.proto.paths import NodePaths
from pyswarm.proto.rpc.client import ManagerPool
from pyswarm.proto.rpc.tls import channel_credentials
from pyswarm.proto.supervisor_client import tell_supervisor
from pyswarm.proto.v1 import dispatcher_pb2, raft_pb2, raft_pb2_grpc
from pyswarm.worker.agent.agent import Agent
from pyswarm.worker.agent.credentials import Credentials
from pyswarm.worker.agent.describe import declared_in, describe_node
from pyswarm.worker.agent.journal import Journal
from pyswarm.worker.agent.logs import LogPublisher
from pyswarm.worker.agent.reporter import Reporter
from pyswarm.worker.agent.session import Sessions
from pyswarm.worker.network.node_network import DEFAULT_SUBNET, NodeNetwork
from pyswarm.worker.runtime.client import RuntimeClient
from pyswarm.worker.secrets.files import SecretFiles

log = logging.get_logger(__name__)

LEAVE_GROUP_SECONDS = 15.0
"""How long a leaving manager tries to be taken out of the consensus group."""


class WorkerDaemon:
    def __init__(self, paths: NodePaths, node: dict[str, Any], settings: dict[str, Any]) -> None:
        self._paths = paths
        self._node = node
        describe = partial(describe_node, declared_in(settings))
        self._role = Role.MANAGER if node["role"] == "manager" else Role.WORKER
        self._pool = ManagerPool(
            [manager["addr"] for manager in node["managers"]], lambda: channel_credentials(paths.certificates)
        )
        self._runtime = RuntimeClient(paths.runtime_socket)
        self._network = NodeNetwork(
            state_file=paths.worker / "network.json",
            namespaces_directory=paths.run / "netns",
            subnet=settings.get("network", {}).get("subnet", DEFAULT_SUBNET),
        )
        self._reporter = Reporter()
        self._journal = Journal(paths.worker / "tasks")
        self._agent = Agent(
            runtime=self._runtime,
            network=self._network,
            secrets=SecretFiles(paths.run / "secrets"),
            journal=self._journal,
            reporter=self._reporter,
            clock=SYSTEM_CLOCK,
            node_id=node["node_id"],
            node=describe(),
        )
        # Of its own: a renewal drops its channel, and must not end the session it was asked for in.
        self._renewal_pool = ManagerPool(self._pool.addresses, lambda: channel_credentials(paths.certificates))
        self._credentials = Credentials(
            paths.certificates,
            pool=self._renewal_pool,
            clock=SYSTEM_CLOCK,
            entropy=SYSTEM_ENTROPY,
            on_renewal=self._renewed,
        )
        self._sessions = Sessions(
            pool=self._pool,
            agent=self._agent,
            reporter=self._reporter,
            entropy=SYSTEM_ENTROPY,
            describe=describe,
            addr=node.get("advertise_addr", ""),
            on_message=self._told,
        )
        self._logs = LogPublisher(pool=self._pool, runtime=self._runtime)
        self._was_told = False

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._agent.run(), name="agent")
                group.create_task(self._sessions.run(), name="sessions")
                group.create_task(self._credentials.run(), name="credentials")
                group.create_task(self._logs.run(), name="logs")
        finally:
            self._journal.close()
            await self._network.close()
            await self._runtime.close()
            await self._pool.close()
            await self._renewal_pool.close()

    async def leave(self) -> None:
        """Take this node out of its cluster as far as managers can be reached, and clean up here in any case."""
        self._sessions.open_no_more()
        try:
            if self._role is Role.MANAGER:
                await self._leave_group()
            await self._sessions.say_goodbye()
        except (SwarmError, TimeoutError) as error:
            log.warning("the managers could not be told", reason=str(error))
        await self._agent.remove_everything()

    async def _leave_group(self) -> None:
        request = raft_pb2.RaftLeaveRequest(node_id=self._node["node_id"])
        async with asyncio.timeout(LEAVE_GROUP_SECONDS):
            while len(self._pool.addresses) > 1:
                try:
                    await raft_pb2_grpc.RaftMembershipStub(self._pool.channel()).Leave(request, timeout=5)
                    return
                except FailedPrecondition as error:
                    # This node led: leadership has been handed on, the new leader answers the next time.
                    log.info("leaving the managers", reason=error.message)
                    await asyncio.sleep(0.5)

    async def _told(self, message: dispatcher_pb2.SessionMessage) -> None:
        """What a session says besides tasks: who the managers are, and which role this node shall have."""
        addresses = [manager.addr for manager in message.managers]
        if addresses:
            self._pool.update(addresses)
            self._renewal_pool.update(addresses)
            stored = [{"node_id": m.node_id, "addr": m.addr} for m in message.managers]
            await self._tell({"op": "managers", "managers": stored})
        if not self._was_told:
            self._was_told = True
            await self._tell({"op": "session"})
        wanted = Role(message.desired_role)
        if wanted is not Role.UNSET and wanted is not self._role:
            log.info("the managers want another role", role=wanted.name.lower())
            await self._credentials.renew()

    async def _renewed(self, role: Role) -> None:
        if role is not self._role:
            self._role = role
            await self._tell({"op": "role", "role": role.name.lower()})

    async def _tell(self, request: dict[str, Any]) -> None:
        await tell_supervisor(self._paths.supervisor_socket, request)


async def _until_told(daemon: WorkerDaemon) -> None:
    loop = asyncio.get_running_loop()
    stop, leave = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, leave.set)
    work = asyncio.create_task(daemon.run(), name="worker")
    signals = [asyncio.create_task(event.wait()) for event in (stop, leave)]
    await asyncio.wait({work, *signals}, return_when=asyncio.FIRST_COMPLETED)
    if leave.is_set() and not work.done():
        await daemon.leave()
    for task in (*signals, work):
        task.cancel()
    try:
        await work
    except asyncio.CancelledError:
        log.info("stopped")


def main() -> None:
    """Entry point of `pyswarm-worker`."""
    parser = argparse.ArgumentParser(description="the worker daemon; pyswarmd starts it on every node")
    parser.add_argument("--root", default=None, help="where state and sockets live (PYSWARM_ROOT, /)")
    arguments = parser.parse_args()
    paths = NodePaths.from_environment(arguments.root)
    try:
        node = json.loads(paths.node_file.read_text())
        settings = tomllib.loads(paths.config_file.read_text()) if paths.config_file.exists() else {}
    except FileNotFoundError:
        sys.exit('pyswarm-worker: this node is not part of a cluster\nUse "pyswarm init" or "pyswarm join" first.')
    except ValueError as error:
        sys.exit(f"pyswarm-worker: {paths.config_file} or {paths.node_file} is damaged: {error}")
    logging.configure(component="worker", level=settings.get("log-level", "info"))
    gc.freeze()

    async def run() -> None:
        await _until_told(WorkerDaemon(paths, node, settings))

    try:
        asyncio.run(run())
    except* SwarmError as group:
        sys.exit(f"pyswarm-worker: {group.exceptions[0]}")


if __name__ == "__main__":
    main()
