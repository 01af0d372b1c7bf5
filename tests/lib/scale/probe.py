"""What a person or a tool waits for at the API: calls of every kind, one after the other, at each manager in turn.

The kinds are those that people make all day: look at one service, list its tasks, list all nodes, list all services,
and write something (a config is created, then removed).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pyswarm.proto.errors import SwarmError
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import types_pb2

PAUSE_SECONDS = 0.05
CALL_SECONDS = 30.0


@dataclass
class Probe:
    """`controls` are stubs of the Control service, one of each manager; `service` is the name of one to look at."""

    controls: list[Any]
    service: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _number: "count[int]" = field(default_factory=count)

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            for control in self.controls:
                for kind, call in self._calls(control).items():
                    await self._timed(kind, call)
                    await asyncio.sleep(PAUSE_SECONDS)

    def _calls(self, control: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "write": lambda: self._write(control),
            "list nodes": lambda: control.ListNodes(pb.ListNodesRequest(), timeout=CALL_SECONDS),
            "list services": lambda: control.ListServices(pb.ListServicesRequest(), timeout=CALL_SECONDS),
        }
        if self.service:
            one = [self.service]
            calls["one service"] = lambda: control.ListServices(pb.ListServicesRequest(ids=one), timeout=CALL_SECONDS)
            calls["its tasks"] = lambda: control.ListTasks(pb.ListTasksRequest(service_ids=one), timeout=CALL_SECONDS)
        return calls

    async def _write(self, control: Any) -> None:
        spec = types_pb2.ConfigSpec(name=f"probe-{next(self._number)}", data=b"-")
        made = await control.CreateConfig(pb.CreateConfigRequest(spec=spec), timeout=CALL_SECONDS)
        began = time.monotonic()
        await control.RemoveConfig(pb.RemoveConfigRequest(id=made.id), timeout=CALL_SECONDS)
        self.seconds.setdefault("remove", []).append(time.monotonic() - began)

    async def _timed(self, kind: str, call: Callable[[], Awaitable[Any]]) -> None:
        began = time.monotonic()
        try:
            await call()
        except SwarmError as error:
            self.failures.append(f"{kind}: {error.message}")
            return
        took = time.monotonic() - began
        if kind == "write":  # two calls, the second timed by itself
            kind, took = "create", took - self.seconds["remove"][-1]
        self.seconds.setdefault(kind, []).append(took)


def percentile(values: list[float], percent: float) -> float:
    """Return the value that `percent` of `values` do not exceed; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
