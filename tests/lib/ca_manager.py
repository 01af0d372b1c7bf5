"""A manager as far as its CA goes: real store, writer and servicers, on real ports with real TLS."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lib.cluster_ca import ClusterCA

from pyswarm.manager.api.ca import BootstrapServicer, CAServicer
from pyswarm.manager.raft.fake import SingleNodeConsensus
from pyswarm.manager.store.changes import Create
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import SYSTEM_CLOCK, Clock
from pyswarm.proto.entropy import SYSTEM_ENTROPY
from pyswarm.proto.model.objects import Cluster
from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.server import Door, Gate, add_secure_port, build_server
from pyswarm.proto.rpc.tls import bootstrap_credentials, server_credentials
from pyswarm.proto.v1 import ca_pb2_grpc


class CAManager:
    def __init__(self, directory: Path, *, ca: ClusterCA | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.ca = ca or ClusterCA()
        self.certificates = self.ca.issue(directory / "manager", "m1", Role.MANAGER)
        self.store = Store()
        self.consensus = SingleNodeConsensus(self.store)
        self.writer = Writer(self.consensus, self.store, clock=clock, entropy=SYSTEM_ENTROPY)
        self._clock = clock
        self.api = ""
        self.bootstrap = ""

    @property
    def remote(self) -> str:
        """The address a machine joins with: the bootstrap port is the next one."""
        host, _, port = self.bootstrap.rpartition(":")
        return f"{host}:{int(port) - 1}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["CAManager"]:
        await self.writer.write([Create(Cluster(id=self.ca.cluster_id, root_ca=self.ca.root))])
        parts = {"store": self.store, "writer": self.writer, "clock": self._clock, "entropy": SYSTEM_ENTROPY}
        mutual = build_server(
            Gate(Door.MUTUAL, cluster_id=self.ca.cluster_id),
            [lambda s: ca_pb2_grpc.add_CAServicer_to_server(CAServicer(**parts), s)],  # type: ignore[arg-type]
        )
        anonymous = build_server(
            Gate(Door.BOOTSTRAP),
            [lambda s: ca_pb2_grpc.add_BootstrapServicer_to_server(BootstrapServicer(**parts), s)],  # type: ignore[arg-type]
        )
        self.api = f"127.0.0.1:{add_secure_port(mutual, '127.0.0.1:0', server_credentials(self.certificates))}"
        self.bootstrap = (
            f"127.0.0.1:{add_secure_port(anonymous, '127.0.0.1:0', bootstrap_credentials(self.certificates))}"
        )
        for server in (mutual, anonymous):
            await server.start()
        try:
            yield self
        finally:
            for server in (mutual, anonymous):
                await server.stop(None)
