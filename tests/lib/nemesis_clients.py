"""Clients that write and read through the managers' own control API, and note what they were told.

Each client asks any manager, through its unix socket, one call after the other: linearizable reads, writes that hold
only for the version that was read, writes without a condition, creations and removals by name, updates of services. It
never repeats a call by itself, so every call is one operation of the history.

A *register* is one object of the cluster: its value is a label, unique to the write that made it. So a condition on
the version is a condition on the value, and a name without an object holds None.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

import grpc.aio
from lib.linearizability import CompareAndSet, Read, Write
from lib.nemesis_history import End, History

from pyswarm.proto.errors import SwarmError
from pyswarm.proto.v1 import control_pb2 as pb
from pyswarm.proto.v1 import control_pb2_grpc, types_pb2

CALL_SECONDS = 2.0
"""A client that waits longer calls the outcome unknown: shorter than a stopped manager sleeps at worst."""

LABEL = "value"


@dataclass
class Seen:
    """What a client knows of a register: enough to write on that condition. No id: there is no object."""

    id: str
    version: int
    value: str | None


ABSENT = Seen("", 0, None)


class Register(Protocol):
    """One key of the history."""

    key: str

    async def read(self, control: control_pb2_grpc.ControlStub) -> Seen: ...

    async def act(self, client: "Client", control: control_pb2_grpc.ControlStub, seen: Seen) -> None:
        """Do one write of this register's kind, on the condition of `seen` if the kind has one."""
        ...


@dataclass
class Client:
    number: int
    history: History
    channels: Sequence[grpc.aio.Channel]
    random: random.Random
    think_seconds: float = 0.12
    """On average, between two operations. Together some fifty a second: enough to fall into every moment of a fault,
    and the managers' processor time goes to rounds rather than to calls while nothing is wrong."""

    _values: "count[int]" = field(default_factory=count)

    async def run(self, registers: Callable[[], Sequence[Register]]) -> None:
        """Go on until cancelled. A call under way then counts as unknown."""
        while True:
            register = self.random.choice(registers())
            seen = await self.read(register)
            # Sometimes on what is known already, as one who reads, thinks and writes: conditions fail then.
            if seen is not None and self.random.random() < 0.7:
                await register.act(self, self.control(), seen)
            await asyncio.sleep(self.random.expovariate(1 / self.think_seconds))

    def control(self) -> control_pb2_grpc.ControlStub:
        """Return a manager to ask, any of them."""
        return control_pb2_grpc.ControlStub(self.random.choice(self.channels))

    def new_value(self) -> str:
        return f"{self.number}.{next(self._values)}"

    async def read(self, register: Register, control: control_pb2_grpc.ControlStub | None = None) -> Seen | None:
        """Read a register; None when the read failed."""
        start = self.history.now()
        try:
            seen = await register.read(control or self.control())
        except SwarmError as error:
            self.history.failed(self.number, register.key, Read(), start, error)
            return None
        self.history.succeeded(self.number, register.key, Read(), start, seen.value)
        return seen

    async def write(
        self,
        register: Register,
        call: CompareAndSet | Write,
        ask: Callable[[], Awaitable[object]],
        *,
        tells_when_not_met: bool = True,
    ) -> None:
        """Await `ask()` and note it as `call`. Without `tells_when_not_met`, a refusal says nothing of the value."""
        start = self.history.now()
        try:
            await ask()
        except SwarmError as error:
            end = self.history.failed(self.number, register.key, call, start, error)
            if end is End.NOT_MET and not tells_when_not_met:
                self.history.operations.pop()
        except asyncio.CancelledError:
            self.history.abandoned(self.number, register.key, call, start)
            raise
        else:
            self.history.succeeded(self.number, register.key, call, start)


@dataclass
class LabelledConfig:
    """A config that exists throughout: written on the condition of its version, or without one."""

    key: str
    id: str
    is_conditional: bool

    async def read(self, control: control_pb2_grpc.ControlStub) -> Seen:
        answer = await control.ListConfigs(pb.ListConfigsRequest(ids=[self.id]), timeout=CALL_SECONDS)
        (config,) = answer.configs
        return Seen(config.id, config.version, config.spec.labels.get(LABEL))

    async def act(self, client: Client, control: control_pb2_grpc.ControlStub, seen: Seen) -> None:
        value = client.new_value()
        version = seen.version if self.is_conditional else 0
        request = pb.UpdateConfigRequest(id=self.id, version=version, labels={LABEL: value})
        call = CompareAndSet(seen.value, value) if self.is_conditional else Write(value)
        await client.write(self, call, lambda: control.UpdateConfig(request, timeout=CALL_SECONDS))


@dataclass
class NamedConfig:
    """A name that is taken and given back: created when it is free, removed by the id that was seen."""

    key: str
    name: str

    async def read(self, control: control_pb2_grpc.ControlStub) -> Seen:
        answer = await control.ListConfigs(pb.ListConfigsRequest(), timeout=CALL_SECONDS)
        for config in answer.configs:
            if config.spec.name == self.name:
                return Seen(config.id, config.version, config.spec.labels[LABEL])
        return ABSENT

    async def act(self, client: Client, control: control_pb2_grpc.ControlStub, seen: Seen) -> None:
        if seen.id:
            removal = pb.RemoveConfigRequest(id=seen.id)
            call = CompareAndSet(seen.value, None)
            await client.write(self, call, lambda: control.RemoveConfig(removal, timeout=CALL_SECONDS))
            return
        value = client.new_value()
        spec = types_pb2.ConfigSpec(name=self.name, labels={LABEL: value}, data=b"-")
        creation = pb.CreateConfigRequest(spec=spec)
        call = CompareAndSet(None, value)
        await client.write(self, call, lambda: control.CreateConfig(creation, timeout=CALL_SECONDS))


@dataclass
class ScaledService:
    """A service whose label and number of replicas change together; no node can take its tasks.

    The cluster itself moves a service's version on too, so a version that was overtaken says nothing of the value.
    """

    key: str
    id: str

    async def read(self, control: control_pb2_grpc.ControlStub) -> Seen:
        service = await self._service(control)
        return Seen(service.id, service.version, service.spec.labels.get(LABEL))

    async def act(self, client: Client, control: control_pb2_grpc.ControlStub, seen: Seen) -> None:
        value = client.new_value()
        spec = impossible_service(self.key, value, replicas=client.random.randrange(4))
        request = pb.UpdateServiceRequest(id=self.id, version=seen.version, spec=spec)
        call = CompareAndSet(seen.value, value)
        await client.write(
            self, call, lambda: control.UpdateService(request, timeout=CALL_SECONDS), tells_when_not_met=False
        )

    async def _service(self, control: control_pb2_grpc.ControlStub) -> types_pb2.Service:
        answer = await control.ListServices(pb.ListServicesRequest(ids=[self.id]), timeout=CALL_SECONDS)
        (service,) = answer.services
        return service


def impossible_service(name: str, value: str, *, replicas: int) -> types_pb2.ServiceSpec:
    """Return a service that the scheduler tries to place and cannot: the store works, the nodes do not."""
    return types_pb2.ServiceSpec(
        name=name,
        labels={LABEL: value},
        task_template=types_pb2.TaskSpec(
            container_spec=types_pb2.ContainerSpec(image="registry:5000/none:1"),
            placement=types_pb2.Placement(
                constraints=["node.labels.nowhere==1"], strategy=types_pb2.PlacementStrategy.SPREAD
            ),
        ),
        mode=types_pb2.ServiceMode(replicated=types_pb2.ReplicatedMode(replicas=replicas)),
    )
