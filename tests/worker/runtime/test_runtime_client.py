"""The agent's way to run a program in a container, against a runtime on a real socket."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from lib.fake_control import serving

from pyswarm.proto.errors import FailedPrecondition, Unavailable
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.proto.v1 import runtime_pb2_grpc
from pyswarm.worker.runtime.client import RuntimeClient
from pyswarm.worker.runtime.port import OUTPUT_BYTES, Executed

Script = list[pb.ExecOutput | Exception]


class Scripted(runtime_pb2_grpc.RuntimeServicer):
    def __init__(self, script: Script) -> None:
        self.script = script
        self.started = pb.ExecConfig()

    async def ExecContainer(self, inputs: AsyncIterator[pb.ExecInput], context: Any) -> AsyncIterator[pb.ExecOutput]:
        self.started = (await anext(aiter(inputs))).start
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            yield step


Execute = Callable[[Script], Any]


@pytest.fixture
async def execute(tmp_path: Path) -> Execute:
    async def run(script: Script) -> tuple[Executed, pb.ExecConfig]:
        servicer, socket = Scripted(script), tmp_path / "runtime.sock"
        with serving(socket, lambda server: runtime_pb2_grpc.add_RuntimeServicer_to_server(servicer, server)):
            client = RuntimeClient(socket)
            try:
                return await client.execute("box", ["probe", "now"], timeout_seconds=3), servicer.started
            finally:
                await client.close()

    return run


async def test_what_a_program_wrote_and_how_it_ended(execute: Execute) -> None:
    script = [pb.ExecOutput(pid=7), pb.ExecOutput(stdout=b"a"), pb.ExecOutput(stderr=b"b"),
              pb.ExecOutput(end=pb.ExecEnd(exit_code=3))]  # fmt: skip
    executed, started = await execute(script)
    assert executed == Executed(3, b"ab")
    assert (started.container, list(started.args), started.timeout_seconds) == ("box", ["probe", "now"], 3.0)


async def test_only_the_beginning_of_much_output_is_kept(execute: Execute) -> None:
    script = [pb.ExecOutput(stdout=bytes(3000)), pb.ExecOutput(stdout=b"x" * 10**6), pb.ExecOutput(end=pb.ExecEnd())]
    executed, _ = await execute(script)
    assert executed.output == bytes(3000) + b"x" * (OUTPUT_BYTES - 3000)


async def test_one_that_was_killed_for_its_timeout_and_one_that_is_not_there(execute: Execute) -> None:
    executed, _ = await execute([pb.ExecOutput(end=pb.ExecEnd(exit_code=137, timed_out=True))])
    assert executed == Executed(137, timed_out=True)
    executed, _ = await execute([pb.ExecOutput(end=pb.ExecEnd(exit_code=127, error="not found"))])
    assert executed == Executed(127, b"not found")


async def test_what_is_no_answer_is_an_error(execute: Execute) -> None:
    with pytest.raises(FailedPrecondition):
        await execute([FailedPrecondition("it is paused", remedy="Unpause it.")])
    with pytest.raises(Unavailable):
        await execute([pb.ExecOutput(pid=7)])
