"""End a task's container in order: the service's pre-stop hook first, then the stop signal, and in the end SIGKILL.

Hook and container share the grace period. Keeping new connections away, and waiting for the old ones, comes before
(`controller.py`).
"""

import asyncio
from collections.abc import Sequence

from pyswarm.proto.errors import SwarmError
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.spec import ContainerSpec
from pyswarm.proto.v1 import runtime_pb2 as pb
from pyswarm.worker.runtime.port import RuntimePort

log = get_logger(__name__)

HOOK_LEAVES_SECONDS = 1.0
"""What a pre-stop hook that took all of the grace period leaves to the container itself."""


async def end_container(runtime: RuntimePort, container_id: str, spec: ContainerSpec, *, runs: bool) -> pb.Container:
    """Stop a container and return it as it ended; the hook is for one that still runs."""
    clock = asyncio.get_running_loop()
    grace = spec.stop_grace_period_seconds
    ends_at = clock.time() + grace
    if spec.pre_stop and runs:
        await _run_hook(runtime, container_id, spec.pre_stop, grace)
        grace = max(min(HOOK_LEAVES_SECONDS, grace), ends_at - clock.time())
    return await runtime.stop(container_id, grace_seconds=grace)


async def _run_hook(runtime: RuntimePort, container_id: str, args: Sequence[str], seconds: float) -> None:
    """A hook that fails keeps no container from stopping, but is told."""
    try:
        done = await runtime.execute(container_id, args, timeout_seconds=seconds)
    except SwarmError as error:
        log.warning("the pre-stop hook could not be executed", container=container_id, reason=error.message)
        return
    if done.exit_code or done.timed_out:
        how = "it took too long" if done.timed_out else f"exit code {done.exit_code}"
        log.warning("the pre-stop hook failed", container=container_id, reason=how, output=done.output[-200:])
