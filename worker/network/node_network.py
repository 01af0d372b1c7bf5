"""The agent's view of the network: attach a task, open its ports, close them, detach it.

Everything derives from two sets, the attachments (task id -> address, kept in a file so that addresses survive a
restart) and the published ports of running tasks. All kernel work goes through one thread, in order.
"""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from pyswarm.proto.errors import AlreadyExists
from pyswarm.proto.log import get_logger
from pyswarm.worker.network import namespaces
from pyswarm.worker.network.ipam import claim, gateway_of
from pyswarm.worker.network.links import Links
from pyswarm.worker.network.nft import PacketFilter
from pyswarm.worker.network.plan import BRIDGE, TABLE, Published, host_link, ruleset

T = TypeVar("T")

log = get_logger(__name__)

DEFAULT_SUBNET = "172.30.0.0/16"

Ports = Sequence[tuple[str, int, int]]
"""(protocol, published port, target port) of each port a task publishes."""


class Attachment(Struct, frozen=True):
    """A task's place in the network: its address, and the namespace its container joins."""

    address: str
    namespace: Path


class NodeNetwork:
    def __init__(self, *, state_file: Path, namespaces_directory: Path, subnet: str = DEFAULT_SUBNET) -> None:
        self._file = state_file
        self._directory = namespaces_directory
        self._subnet = ipaddress.IPv4Network(subnet)
        self._addresses: dict[str, str] = {}
        self._published: dict[str, tuple[Published, ...]] = {}
        self._rules_in_force: str | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._links: Links | None = None
        self._filter: PacketFilter | None = None

    # -- what the agent calls

    async def start(self, expected: Mapping[str, Ports]) -> None:
        """Make the bridge, keep what belongs to `expected` tasks (their open ports by id), remove what is left over.

        The rules are replaced by ones that hold the same ports, so a restart of the worker interrupts nobody.
        """
        self._addresses = _load(self._file)
        for task_id, ports in expected.items():
            if task_id in self._addresses:
                self._published[task_id] = self._at(task_id, ports)
        await self._run(self._set_up)
        present = await self._run(lambda: [p.name for p in self._directory.iterdir()])
        for task_id in sorted({*self._addresses, *present} - set(expected)):
            await self.detach(task_id)

    async def attach(self, task_id: str) -> Attachment:
        """Give a task its namespace and address; the same ones when asked again."""
        address = self._addresses.get(task_id)
        if address is None:
            address = claim(self._subnet, self._addresses)
            self._addresses[task_id] = address
            self._save()
        namespace = self._directory / task_id
        try:
            await self._run(lambda: self._wire(task_id, namespace, address))
        except BaseException:
            await self.detach(task_id)
            raise
        return Attachment(address, namespace)

    def address_of(self, task_id: str) -> str:
        """Return an attached task's address."""
        return self._addresses[task_id]

    async def publish(self, task_id: str, ports: Ports) -> None:
        """Open a running task's ports. Raises AlreadyExists when another process of the machine uses one."""
        wanted = self._at(task_id, ports)
        open_already = {(p.protocol, p.published_port) for held in self._published.values() for p in held}
        for port in wanted:
            if (port.protocol, port.published_port) not in open_already:
                _probe(port)
        self._published[task_id] = wanted
        await self._run(self._apply_rules)

    async def unpublish(self, task_id: str) -> None:
        """Close a task's ports: no new connection reaches it from now on."""
        if self._published.pop(task_id, None) is not None:
            await self._run(self._apply_rules)

    async def detach(self, task_id: str) -> None:
        """Take a task's namespace, wire and address away; does nothing when it has none."""
        await self.unpublish(task_id)
        await self._run(lambda: self._unwire(task_id))
        if self._addresses.pop(task_id, None) is not None:
            self._save()

    async def remove_everything(self) -> None:
        """Leave the node's network as it was before: for a node that leaves its cluster."""
        for task_id in sorted(self._addresses):
            await self.detach(task_id)
        await self._run(self._tear_down)

    async def close(self) -> None:
        """Let go of the kernel's doors; what was set up stays."""
        await self._run(self._close_doors)
        self._thread.shutdown()

    def _at(self, task_id: str, ports: Ports) -> tuple[Published, ...]:
        address = self._addresses[task_id]
        return tuple(Published(protocol, outside, address, inside) for protocol, outside, inside in ports)

    # -- in the network thread

    def _set_up(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._links, self._filter = Links(), PacketFilter()
        self._links.ensure_bridge(gateway_of(self._subnet), self._subnet.prefixlen)
        self._apply_rules()

    def _wire(self, task_id: str, namespace: Path, address: str) -> None:
        assert self._links is not None, "start comes first"
        gateway = gateway_of(self._subnet)
        self._links.wire(host_link(task_id), namespace, address, self._subnet.prefixlen, gateway)

    def _unwire(self, task_id: str) -> None:
        assert self._links is not None, "start comes first"
        self._links.cut(host_link(task_id))
        namespaces.remove(self._directory / task_id)

    def _apply_rules(self) -> None:
        assert self._filter is not None, "start comes first"
        rules = ruleset(str(self._subnet), (port for held in self._published.values() for port in held))
        if rules != self._rules_in_force:
            self._filter.run(rules)
            self._rules_in_force = rules

    def _tear_down(self) -> None:
        assert self._links is not None, "start comes first"
        assert self._filter is not None, "start comes first"
        self._filter.run(f"add table ip {TABLE}\ndelete table ip {TABLE}\n")
        self._links.cut(BRIDGE)
        self._file.unlink(missing_ok=True)

    def _close_doors(self) -> None:
        if self._links is not None:
            self._links.close()
        if self._filter is not None:
            self._filter.close()

    async def _run(self, do: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do)

    def _save(self) -> None:
        """Keep the addresses over a death of this process. A machine's takes the namespaces too, so no disk is waited
        for."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".new")
        aside.write_text(json.dumps(self._addresses))
        aside.rename(self._file)


def _load(file: Path) -> dict[str, str]:
    """Return the addresses by task id; none when a power cut has torn the file: then there are no attachments."""
    try:
        stored: dict[str, str] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.warning("the file of addresses is damaged: no task has one", file=file, error=error)
        return {}
    return stored


def _probe(port: Published) -> None:
    """Raise AlreadyExists when a process of this machine listens on the port."""
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port.published_port))
        except OSError as error:
            raise AlreadyExists(
                f"port {port.published_port}/{port.protocol} is in use on this node: {error.strerror}",
                remedy="Stop what uses it, or publish another port.",
            ) from error
