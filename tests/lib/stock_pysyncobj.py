"""PySyncObj as it is published, beside the one that manager/raft/core.py has set up: for tests of what it does wrong.

One member with neither network nor time of its own, told what happens line by line, as scripted_raft.py does it with
ours. The package is loaded a second time, so that nothing core.py replaced is replaced here.
"""

import importlib
import pickle
import sys
from functools import cache
from types import ModuleType
from typing import Any

START = 100.0


@cache
def stock() -> ModuleType:
    """Return a copy of the package `pysyncobj` that nobody has touched."""
    names = [name for name in sys.modules if name.split(".")[0] == "pysyncobj"]
    ours = {name: sys.modules.pop(name) for name in names}
    try:
        package = importlib.import_module("pysyncobj")
        importlib.import_module("pysyncobj.poller")
        assert package.syncobj.pickle.__name__ == "pysyncobj.pickle"
        # It has no sockets here, and its notifier's pipe would never be closed.
        package.syncobj.PIPE_NOTIFIER_ENABLED = False
        # Pickle finds classes by the name of their module.
        sys.modules["stock_pysyncobj_node"] = package.node
        package.node.Node.__module__ = package.node.TCPNode.__module__ = "stock_pysyncobj_node"
        return package
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "pysyncobj"]:
            del sys.modules[name]
        sys.modules.update(ours)


def command(text: str) -> bytes:
    """Return the log's command for a call of the one replicated method."""
    return b"\x00" + pickle.dumps((0, (text,)), protocol=2)


def entries(first: int, last: int, term: int) -> list[tuple[bytes, int, int]]:
    return [(command(f"{index}.{term}"), index, term) for index in range(first, last + 1)]


class Clock:
    """`step`: how far it moves with each look at it."""

    def __init__(self, now: float = START, *, step: float = 0.0) -> None:
        self.now = now
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class StockMember:
    """Member "a" with `others`; what it sends is kept in `sent`, as (receiver, message)."""

    def __init__(self, others: str = "bc", log: list[tuple[bytes, int, int]] | None = None, **settings: Any) -> None:
        package = stock()
        self.clock = package.syncobj.monotonicTime = Clock()
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.loses_everything = False
        member = self

        class Wire(package.transport.Transport):  # type: ignore[misc, name-defined]
            ready = True

            def addNode(self, node: Any) -> None:
                """A new member."""

            def dropNode(self, node: Any) -> None:
                """One less."""

            def destroy(self) -> None:
                """Nothing to close."""

            def send(self, node: Any, message: dict[str, Any]) -> bool:
                member.sent.append((node.id, message))
                return not member.loses_everything

        class Texts(package.SyncObj):  # type: ignore[misc, name-defined]
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.texts: list[str] = []

            @package.replicated  # type: ignore[untyped-decorator]
            def add(self, text: str) -> None:
                if text == "poison":
                    raise ValueError(text)
                self.texts.append(text)

        if log is not None:
            journal = package.journal.MemoryJournal()
            for entry in log:
                journal.add(*entry)
            if log:
                journal.setCurrentTerm(log[-1][2], None)
            package.syncobj.createJournal = lambda _: journal
        else:
            package.syncobj.createJournal = package.journal.createJournal
        self.wire = Wire(None, None, None)
        self.nodes = {name: package.node.Node(name) for name in others}
        quick = {"autoTick": False, "raftMinTimeout": 0.4, "raftMaxTimeout": 0.8, "useFork": False, **settings}
        configuration = package.SyncObjConf(**quick)
        self.core = Texts(package.node.Node("a"), list(self.nodes.values()), configuration, transport=self.wire)
        for node in self.nodes.values():
            self.wire._onNodeConnected(node)

    def hear(self, sender: str, **message: Any) -> None:
        node = self.nodes.get(sender) or stock().node.Node(sender)
        self.wire._onMessageReceived(node, message)

    def tick(self) -> None:
        self.core.doTick(0.0)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.tick()

    def elect(self, *voters: str) -> None:
        """Bring it to leadership, with its first entry acknowledged by the voters."""
        self.wait(1.0)
        for voter in voters:
            self.hear(voter, type="response_vote", term=self.term)
        assert self.core._isLeader()
        for voter in voters:
            self.acknowledge(voter, self.last_index)
        self.tick()
        self.tick()
        self.sent.clear()

    def acknowledge(self, follower: str, index: int) -> None:
        self.hear(follower, type="next_node_idx", next_node_idx=index + 1, reset=False, success=True)

    @property
    def term(self) -> int:
        return int(self.core.raftCurrentTerm)

    @property
    def log(self) -> Any:
        return self.core._SyncObj__raftLog

    @property
    def last_index(self) -> int:
        return int(self.log[-1][1])

    @property
    def texts(self) -> list[str]:
        return self.core.texts

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for _, message in self.sent if message["type"] == kind]
