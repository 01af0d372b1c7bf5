"""Tasks' wires on a real kernel, in a network namespace of the test's own."""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pyswarm.worker.network import namespaces
from pyswarm.worker.network.links import Links
from pyswarm.worker.network.node_network import NodeNetwork
from pyswarm.worker.network.plan import BRIDGE

pytestmark = pytest.mark.kernel

T = TypeVar("T")
GATEWAY = "172.30.0.1"


class Machine:
    """A network namespace that stands for a whole node."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, do: Callable[[], T]) -> T:
        """Return `do()`, run by a thread in the machine's namespace."""
        return namespaces.furnish(self.path, do)

    def ip(self, *arguments: str, namespace: Path | None = None) -> str:
        """Return what `ip` says in a namespace: the machine's own unless another is given."""
        enter = ["nsenter", f"--net={namespace or self.path}"]
        return subprocess.run([*enter, "ip", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine")
    made.run(lambda: None)
    yield made
    namespaces.remove(made.path)


@pytest.fixture
def wired(machine: Machine, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Two tasks' namespaces on the machine's bridge, at 172.30.0.2 and .3; each wired twice, as after a restart."""
    found = {f"172.30.0.{n}": tmp_path / f"task{n}" for n in (2, 3)}

    def wire() -> None:
        links = Links()
        links.ensure_bridge(GATEWAY, 16)
        for address, path in [*found.items(), *found.items()]:
            links.wire(f"psw{path.name}", path, address, 16, GATEWAY)
        links.close()

    machine.run(wire)
    yield found
    for path in found.values():
        namespaces.remove(path)


def test_tasks_reach_each_other_and_the_node(machine: Machine, wired: dict[str, Path]):
    first, second = wired.values()
    listening = namespaces.furnish(first, lambda: socket.create_server(("172.30.0.2", 80)))
    gateway = machine.run(lambda: socket.create_server((GATEWAY, 80)))
    with listening, gateway:
        for address in ("172.30.0.2", GATEWAY):
            namespaces.furnish(second, lambda to=address: socket.create_connection((to, 80), timeout=5).close())


def test_a_tasks_namespace_has_a_loopback_one_link_and_a_way_out(machine: Machine, wired: dict[str, Path]):
    path = wired["172.30.0.2"]
    links = machine.ip("-brief", "link", namespace=path).splitlines()
    assert [line.split()[0].partition("@")[0] for line in links if " UP " in line or "UNKNOWN" in line] == [
        "lo",
        "eth0",
    ]
    assert "172.30.0.2/16" in machine.ip("-brief", "address", "show", "eth0", namespace=path)
    assert f"default via {GATEWAY} dev eth0" in machine.ip("route", namespace=path)
    assert f"master {BRIDGE}" in machine.ip("link", "show", "pswtask2")


def test_a_wire_that_is_cut_is_gone_at_both_ends_and_may_be_cut_again(machine: Machine, wired: dict[str, Path]):
    def cut() -> None:
        links = Links()
        links.cut("pswtask2")
        links.cut("pswtask2")
        links.close()

    machine.run(cut)
    assert "pswtask2" not in machine.ip("-brief", "link")
    assert "eth0" not in machine.ip("-brief", "link", namespace=wired["172.30.0.2"])
    assert "pswtask3" in machine.ip("-brief", "link")


def test_a_task_is_reached_at_once_at_an_address_that_another_had_before(machine: Machine, wired: dict[str, Path]):
    """The machine and the neighbours remember for half a minute which hardware address an address has."""
    path, neighbour = wired.values()

    def replace() -> None:
        links = Links()
        links.cut("pswtask2")
        namespaces.remove(path)
        links.wire("pswtask2", path, "172.30.0.2", 16, GATEWAY)
        links.close()

    def serve_and_ask() -> None:
        with namespaces.furnish(path, lambda: socket.create_server(("172.30.0.2", 80))):
            for ask_from in (machine.path, neighbour):
                # Less than the second after which a lost first packet is sent again.
                ask = lambda: socket.create_connection(("172.30.0.2", 80), timeout=0.9).close()  # noqa: E731
                namespaces.furnish(ask_from, ask)

    serve_and_ask()
    machine.run(replace)
    serve_and_ask()


def test_what_the_kernel_refuses_is_told(machine: Machine, wired: dict[str, Path], tmp_path: Path):
    def wire_twice() -> None:
        links = Links()
        try:
            # The host's end exists: it is another task's.
            links.wire("pswtask2", tmp_path / "other", "172.30.0.4", 16, GATEWAY)
        finally:
            links.close()

    with pytest.raises(OSError, match="rtnetlink request 3"):
        machine.run(wire_twice)
    namespaces.remove(tmp_path / "other")


def test_addresses_are_kept_over_a_restart_and_a_damaged_file_of_them_is_none(machine: Machine, tmp_path: Path):
    """A file that a power cut has torn: the machine's namespaces are gone with it, so nothing is lost."""
    file, directory = tmp_path / "network.json", tmp_path / "netns"

    async def attached(expected: dict[str, tuple[()]]) -> tuple[str, str]:
        network = NodeNetwork(state_file=file, namespaces_directory=directory)
        await network.start(expected)
        found = [(await network.attach(task_id)).address for task_id in ("t1", "t2")]
        await network.close()
        return found[0], found[1]

    async def remove() -> None:
        network = NodeNetwork(state_file=file, namespaces_directory=directory)
        await network.start({})
        await network.remove_everything()
        await network.close()

    assert machine.run(lambda: asyncio.run(attached({}))) == ("172.30.0.2", "172.30.0.3")
    assert machine.run(lambda: asyncio.run(attached({"t2": ()}))) == ("172.30.0.2", "172.30.0.3")
    file.write_text('{"t1": "172.3')
    assert machine.run(lambda: asyncio.run(attached({}))) == ("172.30.0.2", "172.30.0.3")
    machine.run(lambda: asyncio.run(remove()))
    assert not any(directory.iterdir())
