"""A process full of simulated agents: the product's own sessions, each with its own certificate and connection.

Started by `fleet.py`, which sends one JSON object a line and reads one back for each:

    {"do": "join", "count": 500, "token": …, "managers": […]}    certificates from the cluster's CA
    {"do": "start"}                                              open all sessions; answers when all are open
    {"do": "kill", "count": 5}   {"do": "revive"}                power cuts, and the end of them
    {"do": "look"}                                               what happened since the last look

Ends with its standard input.
"""

import asyncio
import gc
import json
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from lib.scale.tasks import Seen, SimulatedTasks

from pyswarm.proto import log as logging
from pyswarm.proto.clock import SYSTEM_CLOCK
from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.csr import make_csr
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import NodeDescription
from pyswarm.proto.model.resources import Platform, Resources
from pyswarm.proto.rpc.client import ManagerPool, open_channel
from pyswarm.proto.rpc.event_loop import GrpcSelectorLoop
from pyswarm.proto.rpc.tls import pinned_root_credentials
from pyswarm.proto.v1 import ca_pb2, ca_pb2_grpc, dispatcher_pb2, types_pb2
from pyswarm.worker.agent.agent import Agent
from pyswarm.worker.agent.reporter import Reporter
from pyswarm.worker.agent.session import Sessions

if TYPE_CHECKING:
    import grpc

JOINS_AT_ONCE = 8
OPENINGS_AT_ONCE = 32
"""Nodes are not switched on in one moment."""


@dataclass(frozen=True)
class Identity:
    node_id: str
    root_pem: bytes
    certificate_pem: bytes
    key_pem: bytes

    def credentials(self) -> "grpc.ChannelCredentials":
        import grpc  # only after pyswarm.proto, which settles its TLS version

        return grpc.ssl_channel_credentials(self.root_pem, self.key_pem, self.certificate_pem)


class CountingReporter(Reporter):
    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self._seen = seen

    async def take(self) -> Any:
        taken = await super().take()
        self._seen.reports_sent += len(taken)
        return taken


class SimulatedAgent:
    def __init__(self, name: str, identity: Identity, managers: list[str], seen: Seen) -> None:
        self.name = name
        self.is_open = asyncio.Event()
        self._identity = identity
        self._seen = seen
        self._reporter = CountingReporter(seen)
        self.tasks = SimulatedTasks(self._reporter, seen, random.Random(name))
        self._pool = ManagerPool(managers, identity.credentials)
        self._life: asyncio.Task[None] | None = None

    def start(self) -> None:
        sessions = Sessions(
            pool=self._pool,
            agent=cast(Agent, self.tasks),
            reporter=self._reporter,
            entropy=SYSTEM_ENTROPY,
            describe=self._describe,
            addr="",
            on_message=self._told,
        )
        self.tasks.is_on = True
        self._life = asyncio.create_task(sessions.run())

    async def cut_power(self) -> None:
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait([self._life])
        self.tasks.lose_power()
        await self._pool.close()

    def _describe(self) -> NodeDescription:
        resources = Resources(nano_cpus=8_000_000_000, memory_bytes=32 << 30)
        return NodeDescription(
            hostname=self.name, platform=Platform(architecture="x86_64", os="linux"), resources=resources
        )

    async def _told(self, message: dispatcher_pb2.SessionMessage) -> None:
        if not self.is_open.is_set():
            self._seen.sessions_opened += 1
            self.is_open.set()
        self._pool.update([manager.addr for manager in message.managers])


class AgentsProcess:
    def __init__(self) -> None:
        self._agents: list[SimulatedAgent] = []
        self._dead: list[SimulatedAgent] = []
        self._seen = Seen()
        self._rng = random.Random(0)

    async def join(self, *, prefix: str, count: int, token: str, root_pem: str, managers: list[str]) -> dict[str, Any]:
        turns = asyncio.Semaphore(JOINS_AT_ONCE)
        host, _, port = managers[0].rpartition(":")
        async with open_channel(f"{host}:{int(port) + 1}", pinned_root_credentials(root_pem.encode())) as channel:
            bootstrap = ca_pb2_grpc.BootstrapStub(channel)

            async def one(number: int) -> None:
                async with turns:
                    identity = await _identity(bootstrap, token, f"{prefix}-{number:04}")
                # Each begins with another manager, as machines do that were joined by different people.
                at = number % len(managers)
                asked = managers[at:] + managers[:at]
                self._agents.append(SimulatedAgent(f"{prefix}-{number:04}", identity, asked, self._seen))

            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(one(number))
        return {"joined": len(self._agents)}

    async def start(self) -> dict[str, Any]:
        await self._open(self._agents)
        return {"sessions": len(self._agents)}

    async def kill(self, *, count: int) -> dict[str, Any]:
        alive = [agent for agent in self._agents if agent not in self._dead]
        chosen = self._rng.sample(alive, min(count, len(alive)))
        lost = sum(agent.tasks.running for agent in chosen)
        for agent in chosen:
            await agent.cut_power()
        self._dead += chosen
        return {"killed": len(chosen), "tasks": lost}

    async def revive(self) -> dict[str, Any]:
        dead, self._dead = self._dead, []
        await self._open(dead)
        return {"revived": len(dead)}

    async def look(self) -> dict[str, Any]:
        seen, fresh = self._seen, Seen()
        answer = {
            "running": sum(agent.tasks.running for agent in self._agents),
            "dispatch_seconds": [round(seconds, 4) for seconds in seen.dispatch_seconds],
            "reports": seen.reports_sent,
            "sessions": seen.sessions_opened,
        }
        # The agents hold on to the record itself.
        seen.__dict__.update(fresh.__dict__)
        return answer

    @staticmethod
    async def _open(agents: list[SimulatedAgent]) -> None:
        turns = asyncio.Semaphore(OPENINGS_AT_ONCE)

        async def one(agent: SimulatedAgent) -> None:
            async with turns:
                agent.is_open.clear()
                agent.start()
                await agent.is_open.wait()

        async with asyncio.TaskGroup() as group:
            for agent in agents:
                group.create_task(one(agent))


async def _identity(bootstrap: Any, token: str, name: str) -> Identity:
    key, csr = make_csr()
    request = ca_pb2.IssueNodeCertificateRequest(
        token=token,
        csr_pem=csr,
        availability=types_pb2.Availability.ACTIVE,
        description=to_message(NodeDescription(hostname=name), types_pb2.NodeDescription),
        client_time=SYSTEM_CLOCK.now(),
    )
    issued = await bootstrap.IssueNodeCertificate(request, timeout=60)
    pems = (issued.root_ca_pem.encode(), issued.certificate_pem.encode(), key.encode())
    return Identity(issued.node_id, *pems)


async def main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    process = AgentsProcess()
    while line := await lines.readline():
        asked = json.loads(line)
        answer = await getattr(process, asked.pop("do"))(**asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    logging.configure(component="agents", level="warning")
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    with asyncio.Runner(loop_factory=GrpcSelectorLoop) as runner:
        runner.run(main())
