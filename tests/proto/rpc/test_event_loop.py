"""gRPC's wake-ups do not pile up on our event loops.

Its queue is made once for a process, with the first of its objects, so each case has a process of its own.
"""

import subprocess
import sys

import pytest

LEFT_UNREAD = """
import asyncio, socket, sys
from pyswarm.proto.rpc import event_loop

WAKE_UPS, TURNS = 100, 10
pairs, make_pair = [], socket.socketpair

def recorded_pair(*arguments):
    pairs.append(make_pair(*arguments))
    return pairs[-1]

async def main():
    import grpc.aio
    socket.socketpair = recorded_pair
    async with grpc.aio.insecure_channel("127.0.0.1:1"):
        [(reader, writer)] = pairs
        writer.send(b"1" * WAKE_UPS)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        try:
            print(len(reader.recv(WAKE_UPS, socket.MSG_PEEK | socket.MSG_DONTWAIT)))
        except BlockingIOError:
            print(0)

with asyncio.Runner(loop_factory=getattr(event_loop, sys.argv[1])) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["GrpcUvloop", "GrpcSelectorLoop"])
def test_a_burst_of_events_does_not_take_a_turn_of_the_loop_for_each(loop: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_UNREAD, loop], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
