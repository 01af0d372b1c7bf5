"""What containers use, and which processes they have, as messages. Nothing is kept: every answer is read anew."""

import asyncio
import os
from collections.abc import Sequence

from pyswarm.agent_runtime.container.containers import Containers, not_running
from pyswarm.agent_runtime.container.record import Record
from pyswarm.agent_runtime.kernel import cgroup_usage
from pyswarm.agent_runtime.kernel.cgroups import Cgroups
from pyswarm.agent_runtime.kernel.process_table import read_processes
from pyswarm.proto.clock import Clock
from pyswarm.proto.v1 import runtime_pb2 as pb


class Statistics:
    def __init__(self, containers: Containers, cgroups: Cgroups, clock: Clock) -> None:
        self._containers = containers
        self._cgroups = cgroups
        self._clock = clock

    async def usage(self, ids: Sequence[str]) -> list[pb.ContainerStats]:
        """Return what these containers have used; all that run, if none is named. One that does not run used nothing.

        Raises NotFound.
        """
        records = [self._containers.record(name) for name in ids] if ids else self._containers.running()
        return await asyncio.to_thread(lambda: [self._one(record) for record in records])

    def _one(self, record: Record) -> pb.ContainerStats:
        if record.process is None or not record.is_alive:
            return pb.ContainerStats(id=record.id, read_at=self._clock.now())
        usage = cgroup_usage.read_usage(self._cgroups, record.id)
        received, sent = cgroup_usage.read_network(record.process.pid)
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        pressures = {kind: _pressure(pressure) for kind, pressure in usage.pressure.items()}
        return pb.ContainerStats(
            id=record.id,
            read_at=self._clock.now(),
            cpu_ns=usage.cpu,
            cpu_user_ns=usage.cpu_user,
            cpu_system_ns=usage.cpu_system,
            throttled_periods=usage.throttled_periods,
            throttled_ns=usage.throttled,
            memory_bytes=max(0, usage.memory - usage.memory_inactive),
            memory_cache_bytes=usage.memory_inactive,
            memory_limit_bytes=min(usage.memory_limit or machine, machine),
            oom_kills=self._cgroups.oom_kills(record.id),
            pids=usage.pids,
            pids_limit=usage.pids_limit,
            block_read_bytes=usage.read,
            block_written_bytes=usage.written,
            net_received_bytes=received,
            net_sent_bytes=sent,
            cpu_pressure=pressures.get("cpu"),
            memory_pressure=pressures.get("memory"),
            io_pressure=pressures.get("io"),
        )

    async def top(self, container_id: str) -> list[pb.ProcessRow]:
        """Return the processes of a running container."""
        if not self._containers.record(container_id).is_alive:
            raise not_running(container_id)
        found = await asyncio.to_thread(lambda: read_processes(self._cgroups.processes(container_id)))
        return [
            pb.ProcessRow(
                pid=one.pid,
                parent_pid=one.parent_pid,
                uid=one.uid,
                started_at=one.started_at,
                cpu_seconds=one.cpu_seconds,
                terminal=one.terminal,
                command=one.command,
            )
            for one in found
        ]


def _pressure(pressure: cgroup_usage.Pressure) -> pb.Pressure:
    some, full = pressure.some, pressure.full
    return pb.Pressure(
        some_avg10=some[0],
        some_avg60=some[1],
        some_avg300=some[2],
        some_total_us=pressure.some_total,
        full_avg10=full[0],
        full_avg60=full[1],
        full_avg300=full[2],
        full_total_us=pressure.full_total,
    )
