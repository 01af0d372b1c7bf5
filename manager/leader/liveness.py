"""Watch over the nodes while this manager leads: who has a session, who has fallen silent.

The edge of `dispatcher/liveness.py`: it knows the time and writes what that table decides.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import islice

from msgspec.structs import replace

from pyswarm.manager.dispatcher.liveness import Liveness
from pyswarm.manager.store.changes import Plan, Update
from pyswarm.manager.store.conflict import Conflict
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.manager.store.writer import Writer
from pyswarm.proto.clock import Clock
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import FailedPrecondition, NotFound, NotLeader, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.model.objects import Node, NodeDescription
from pyswarm.proto.model.spec import ClusterSpec
from pyswarm.proto.model.states import NodeState

log = get_logger(__name__)

RETRY_SECONDS = 0.5
"""Pause before nodes are declared down again, when that could not be written."""

DOWN_AT_ONCE = 200
"""Nodes declared down in one write."""

LOOK_SECONDS = 0.1
"""The loop looks at its own lateness so often at least."""

LATE_SECONDS = 0.05
"""Lateness of the event loop below which it is no worse off than anybody else on the machine."""

OPENINGS_AT_ONCE = 64
"""Sessions written down side by side; others wait in turn, and whoever gives up meanwhile costs no write. A leader that
began with thousands at once would finish none before they are given up."""


class SessionOver(FailedPrecondition):
    """The session was replaced, or this manager has not led since before it was opened."""

    remedy = "The agent opens a new session by itself."


class SessionEnd:
    """Says when a session is over: whoever waits for other news of it hears of that by the same event."""

    def __init__(self) -> None:
        self.is_over = False
        self._waiting: set[asyncio.Event] = set()

    def wakes(self, woken: asyncio.Event) -> Callable[[], None]:
        """Have `woken` set when the session is over; return what undoes it."""
        self._waiting.add(woken)
        return lambda: self._waiting.discard(woken)

    def come(self) -> None:
        self.is_over = True
        for woken in self._waiting:
            woken.set()


class NodeWatch:
    """The leader's table of sessions and the loop that declares silent nodes down.

    Silence is counted in time in which this manager could have heard something: while its event loop is held, by a long
    computation or because the process does not run, heartbeats wait unread, and nobody is to be declared down for that.
    """

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        spec = store.view.cluster.spec if store.view.cluster is not None else ClusterSpec()
        self._liveness = Liveness(spec.heartbeat_period_seconds)
        self._changed = asyncio.Event()
        self._openings = asyncio.Semaphore(OPENINGS_AT_ONCE)
        self._ends: dict[str, SessionEnd] = {}
        self._held_seconds = 0.0
        """How long the event loop was held altogether."""
        # To be declared down, in the order in which they fell silent; kept until that is written.
        self._silent: dict[str, None] = {}

    @property
    def period_seconds(self) -> float:
        return self._liveness.period_seconds

    async def run(self) -> None:
        """Declare nodes down as they fall silent; runs until cancelled."""
        now = self._now()
        for node in self._store.view.nodes():
            if node.status.state in (NodeState.READY, NodeState.UNKNOWN):
                self._liveness.expect(node.id, now=now)
        while True:
            self._changed.clear()
            deadline = self._liveness.next_deadline()
            wait = LOOK_SECONDS if deadline is None else min(max(0.0, deadline - self._now()), LOOK_SECONDS)
            if await self._was_held(wait):
                continue  # what has come meanwhile is read first
            deadline = self._liveness.next_deadline()
            if deadline is not None and deadline <= self._now():
                await self._declare_down()

    def _now(self) -> float:
        return self._clock.monotonic() - self._held_seconds

    async def _was_held(self, seconds: float) -> bool:
        """Wait so long, or until something has changed; return whether the event loop was held meanwhile."""
        time = asyncio.get_running_loop().time
        due = time() + seconds
        try:
            async with asyncio.timeout_at(due):
                await self._changed.wait()
        except TimeoutError:
            pass
        late = time() - due
        if late > LATE_SECONDS:
            self._held_seconds += late
        return late > LATE_SECONDS

    async def _declare_down(self) -> None:
        """Declare what is silent down; goes on until it is written, or this manager leads no longer."""
        for node_id in self._liveness.expired(now=self._now()):
            log.warning("node is down: no heartbeat", node=node_id)
            self._end(node_id)
            self._silent[node_id] = None
        while self._silent:
            some = tuple(islice(self._silent, DOWN_AT_ONCE))
            try:
                await self._writer.update(partial(self._all_down, node_ids=some), attempts=20)
            except (NotLeader, Unavailable, Conflict) as error:
                log.warning("silent nodes could not be declared down yet", nodes=len(some), reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                for node_id in some:
                    self._silent.pop(node_id, None)

    def _all_down(self, seen: Snapshot, node_ids: tuple[str, ...]) -> Plan:
        changes = []
        for node_id in node_ids:
            node = seen.node(node_id)
            # One that has come back meanwhile is none of them any more.
            if node is not None and node_id in self._silent:
                changed = self._in_state(node, NodeState.DOWN, "heartbeat failure")
                changes += [] if changed == node else [Update(changed)]
        return Plan(tuple(changes), why="heartbeat failure")

    async def register(self, node_id: str, description: NodeDescription, addr: str) -> tuple[str, SessionEnd]:
        """Open a session: the node is READY. Return its id and what says when it is over.

        Raises NotFound for a node that is not part of the cluster.
        """
        if self._store.view.node(node_id) is None:
            raise NotFound(f"node {node_id} is not part of this cluster", remedy="Leave and join again.")
        session_id = self._entropy.new_id()
        self._end(node_id)
        self._silent.pop(node_id, None)
        end = self._ends[node_id] = SessionEnd()
        self._liveness.register(node_id, session_id, now=self._now())
        self._changed.set()
        async with self._openings:
            await self._set_state(node_id, NodeState.READY, "", description=description, addr=addr)
        log.info("session opened", node=node_id, session=session_id, addr=addr)
        return session_id, end

    def beat(self, node_id: str, session_id: str) -> None:
        """Count a heartbeat. Raises SessionOver."""
        node = self._store.view.node(node_id)
        # It came back while its silence was being written down: a new session writes that it is there.
        is_down = node is not None and node.status.state is NodeState.DOWN
        if is_down or not self._liveness.beat(node_id, session_id, now=self._now()):
            raise SessionOver(f"session {session_id} of node {node_id} is over")

    def check(self, node_id: str, session_id: str) -> None:
        """Raise SessionOver unless this is the node's present session."""
        if not self._liveness.is_current(node_id, session_id):
            raise SessionOver(f"session {session_id} of node {node_id} is over")

    def end_of(self, node_id: str) -> SessionEnd:
        return self._ends[node_id]

    async def leave(self, node_id: str, session_id: str) -> None:
        """The node says goodbye: DISCONNECTED at once."""
        self.check(node_id, session_id)
        self._liveness.forget(node_id)
        self._end(node_id)
        await self._set_state(node_id, NodeState.DISCONNECTED, "the node said goodbye")

    def close(self) -> None:
        """End every session's streams: this manager leads no longer."""
        for node_id in list(self._ends):
            self._end(node_id)

    def _end(self, node_id: str) -> None:
        end = self._ends.pop(node_id, None)
        if end is not None:
            end.come()

    async def _set_state(
        self,
        node_id: str,
        state: NodeState,
        message: str,
        *,
        description: NodeDescription | None = None,
        addr: str = "",
    ) -> None:
        def change(seen: Snapshot) -> Plan:
            node = seen.node(node_id)
            if node is None:
                return Plan()
            changed = self._in_state(node, state, message)
            status = replace(changed.status, addr=addr or node.status.addr)
            changed = replace(changed, status=status, description=description or node.description)
            return Plan(() if changed == node else (Update(changed),), why=message or "the node opened a session")

        await self._writer.update(change, attempts=20)

    def _in_state(self, node: Node, state: NodeState, message: str) -> Node:
        changed_at = node.status.changed_at if node.status.state is state else self._clock.now()
        return replace(node, status=replace(node.status, state=state, message=message, changed_at=changed_at))
