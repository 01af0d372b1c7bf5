"""The runtime as the agent needs it. Implemented by `client.py` over gRPC to agent_runtime; a fake ships beside it.

Messages are those of `proto/v1/runtime.proto`: the port adds no second vocabulary.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyswarm.proto.v1 import runtime_pb2 as pb

OUTPUT_BYTES = 4096
"""Docker keeps as much of a health check's output."""


@dataclass(frozen=True)
class Executed:
    """How a program ended, and the first `OUTPUT_BYTES` of what it wrote."""

    exit_code: int
    output: bytes = b""
    timed_out: bool = False


class RuntimePort(Protocol):
    """Every method raises `SwarmError`s (NotFound, Unavailable, ...), never `grpc.RpcError`."""

    async def version(self) -> pb.RuntimeVersion: ...

    def pull(self, reference: str) -> AsyncIterator[pb.PullProgress]:
        """Pull an image; the last message carries it."""

    async def images(self) -> list[pb.Image]: ...

    async def create(self, container_id: str, config: pb.ContainerConfig) -> pb.Container: ...

    async def start(self, container_id: str) -> pb.Container: ...

    async def stop(self, container_id: str, *, grace_seconds: float) -> pb.Container: ...

    async def kill(self, container_id: str, signal: str) -> None:
        """Send the container's first process a signal, by name or number."""

    async def remove(self, container_id: str, *, force: bool = False) -> None: ...

    async def execute(self, container_id: str, args: Sequence[str], *, timeout_seconds: float) -> Executed:
        """Run a program in a running container to its end; it is killed after `timeout_seconds`, even if we are gone.

        Raises SwarmError when the container cannot be joined. That there is no such program is an exit code (126, 127).
        """

    async def report_health(self, container_id: str, health: pb.ContainerHealth) -> pb.Container:
        """Tell what its checks have found. Raises FailedPrecondition when it does not run."""

    async def containers(self) -> list[pb.Container]: ...

    def watch(self) -> AsyncIterator[pb.Container]:
        """Yield every container, then each change of one."""

    def logs(
        self, container_id: str, *, follow: bool, tail: int, since: float, until: float = 0.0
    ) -> AsyncIterator[pb.LogRecord]:
        """Yield its lines; `until` 0 is without an end. Raises FailedPrecondition when its driver keeps none."""
