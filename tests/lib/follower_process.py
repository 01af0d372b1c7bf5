"""One member of a raft lab in a process of its own, so that its system calls can be watched: see test_sync_order.py.

Runs until its standard input ends.

    python follower_process.py NAME RAFT_PORT DIRECTORY CERTIFICATES CLUSTER_ID
"""

import asyncio
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.raft_lab import Ledger

from pyswarm.manager.raft.engine import RaftEngine
from pyswarm.manager.raft.port import Member
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.sealing.keys import open_sealer
from pyswarm.proto.rpc.tls import raft_ssl_contexts

SETTINGS = RaftSettings(heartbeat_seconds=0.5, election_seconds=(1.6, 2.4), quorum_lost_seconds=5.0)


async def main(name: str, port: str, directory: str, certificates: str, cluster_id: str) -> None:
    engine = await RaftEngine.open(
        member=Member(f"raft-{name}", f"node-{name}", f"127.0.0.1:{port}", f"127.0.0.1:{int(port) + 1}"),
        members=(),
        state_machine=Ledger(),
        directory=Path(directory) / "raft",
        sealer=open_sealer(Path(directory) / "sealing"),
        tls=partial(raft_ssl_contexts, Path(certificates)),
        listen=("127.0.0.1", int(port)),
        cluster_id=cluster_id,
        settings=SETTINGS,
    )
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.run())
        print("ready", flush=True)
        await over.wait()
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
