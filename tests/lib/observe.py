"""Run on a manager's host: print how many tasks of a service run, at every commit that touches one of them.

python observe.py SOCKET SERVICE      one JSON object a line, until killed; the first one once it watches
"""

import asyncio
import json
import sys

from pyswarm.proto.rpc.client import open_unix_channel
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2


async def observe(socket: str, name: str) -> None:
    async with open_unix_channel(socket) as channel:
        control = control_pb2_grpc.ControlStub(channel)
        service = (await control.ListServices(pb.ListServicesRequest(ids=[name]))).services[0]
        async for _ in control.Watch(pb.WatchRequest(kinds=["task"], service_id=service.id)):
            listed = await control.ListTasks(pb.ListTasksRequest(service_ids=[service.id]))
            running = [t for t in listed.tasks if t.status.state == types_pb2.RUNNING]
            print(
                json.dumps(
                    {
                        "running": len(running),
                        "versions": {str(t.slot): t.spec_version for t in running},
                        "wanted": {
                            str(t.slot): t.spec_version for t in listed.tasks if t.desired_state <= types_pb2.RUNNING
                        },
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(observe(sys.argv[1], sys.argv[2]))
