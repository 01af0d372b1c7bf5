"""Several real members of one consensus group in this process: real TLS on loopback, real disks, a toy state."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from lib.certificates import CertificateMaker
from lib.faulty_disk import FaultyDisk

from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.sealing.keys import open_sealer
from pyswarm.proto.rpc.tls import raft_ssl_contexts

SETTINGS = RaftSettings()


class Ledger:
    """A state machine that remembers every payload, in order."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.indexes: list[int] = []
        self.restored_at: list[int] = []

    def apply(self, index: int, payload: bytes) -> bytes:
        self.entries.append(payload)
        self.indexes.append(index)
        return b"%d" % len(self.entries)

    def snapshot(self) -> Iterable[bytes]:
        return self._pieces(tuple(self.entries))

    @staticmethod
    def _pieces(entries: tuple[bytes, ...]) -> Iterator[bytes]:
        for entry in entries:
            yield len(entry).to_bytes(4, "big") + entry

    def restore(self, index: int, pieces: Iterable[bytes]) -> None:
        self.entries = [piece[4:] for piece in pieces]
        self.restored_at.append(index)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LabMember:
    """One member, which can be stopped, killed and started again on the same disk."""

    def __init__(self, lab: "RaftLab", name: str) -> None:
        self.lab = lab
        port = free_port()
        self.member = Member(f"raft-{name}", f"node-{name}", f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}")
        self.directory = lab.directory / name
        self.certificates = lab.certificates.issue(self.directory / "certificates", self.member.node_id)
        self.ledger = Ledger()
        self.disk = FaultyDisk()
        self.removed_nodes = lab.removed_nodes
        self.engine: RaftEngine
        self.task: asyncio.Task[None] | None = None

    async def start(self, members: tuple[Member, ...] = (), settings: RaftSettings | None = None) -> None:
        self.ledger = Ledger()
        host, _, port = self.member.raft_addr.rpartition(":")
        self.engine = await RaftEngine.open(
            member=self.member,
            members=members,
            state_machine=self.ledger,
            directory=self.directory / "raft",
            sealer=open_sealer(self.directory / "sealing"),
            tls=partial(raft_ssl_contexts, self.certificates),
            listen=(host, int(port)),
            cluster_id=self.lab.certificates.cluster_id,
            settings=settings or self.lab.settings,
            storage=self.disk,
            is_removed=lambda node_id: node_id in self.removed_nodes,
        )
        self.task = asyncio.get_running_loop().create_task(self.engine.run(), name=self.member.node_id)

    async def stop(self) -> None:
        if self.task is not None:
            await self.engine.close()
            await self.task
            self.task = None

    async def kill(self) -> None:
        """Cut every link and drop all that is not on the disk yet, as SIGKILL does."""
        engine, task = self.engine, self.task
        assert task is not None
        self.task = None
        engine._journal._operations.clear()
        engine._journal._taken_position = engine._journal.position
        task.cancel()
        await asyncio.wait({task})

    @property
    def is_running(self) -> bool:
        return self.task is not None


class RaftLab:
    def __init__(self, directory: Path, settings: RaftSettings = SETTINGS) -> None:
        self.directory = directory
        self.settings = settings
        self.certificates = CertificateMaker()
        self.members: list[LabMember] = []
        self.removed_nodes: set[str] = set()

    async def first(self) -> LabMember:
        founder = LabMember(self, "1")
        self.members.append(founder)
        await founder.start((founder.member,))
        await ready(founder)
        return founder

    async def join(self) -> LabMember:
        """Start one more member and have the leader add it."""
        joiner = LabMember(self, str(len(self.members) + 1))
        self.members.append(joiner)
        await joiner.start()
        leader = await self.leader()
        await leader.engine.add_member(joiner.member)
        return joiner

    async def leader(self, *, among: Callable[[LabMember], bool] = lambda _: True) -> LabMember:
        """Wait until a running member leads and is ready, and return it."""

        async def watch(candidate: LabMember) -> LabMember:
            await ready(candidate)
            return candidate

        running = [m for m in self.members if m.is_running and among(m)]
        tasks = [asyncio.ensure_future(watch(m)) for m in running]
        try:
            async with asyncio.timeout(15):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def followers(self) -> list[LabMember]:
        leader = await self.leader()
        return [m for m in self.members if m.is_running and m is not leader]

    async def stop(self) -> None:
        for member in self.members:
            await member.stop()


@asynccontextmanager
async def raft_lab(directory: Path, count: int, settings: RaftSettings = SETTINGS) -> AsyncIterator[RaftLab]:
    """A running group of `count` members."""
    lab = RaftLab(directory, settings)
    try:
        await lab.first()
        for _ in range(count - 1):
            await lab.join()
        yield lab
    finally:
        await lab.stop()


async def ready(member: LabMember) -> None:
    async for leadership in member.engine.watch_leadership():
        if leadership.is_ready:
            return


async def caught_up(member: LabMember, index: int, seconds: float = 10.0) -> None:
    """Wait until `member` has applied the entry at `index`."""
    async with asyncio.timeout(seconds):
        while member.engine.applied_index < index:  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0.01)


async def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a state that no event announces."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
