"""Hold messages back until what they promise is on the disk.

A vote, an acknowledgement and a candidacy are promises: if this member forgot them, an acknowledged write could be
lost. Each is posted with the journal position it depends on. The leader's appends promise nothing about the
leader's own disk and pass at once, so that its disk and the followers' work at the same time.
"""

from collections import deque
from collections.abc import Callable

from pyswarm.manager.raft.codec import Message
from pyswarm.manager.raft.rules import ALL_RULES, Rules

HELD_MAX = 8192
"""Messages held back at most; the oldest is dropped then, as a network may."""

Send = Callable[[str, Message], None]


class DurabilityGate:
    def __init__(self, send: Send, *, rules: Rules = ALL_RULES) -> None:
        self._waits = rules.wait_for_disk
        self._send = send
        self._durable = 0
        self._held: deque[tuple[int, str, Message]] = deque(maxlen=HELD_MAX)

    def post(self, raft_id: str, message: Message, *, needs: int = 0) -> None:
        """Send `message` as soon as the journal is durable up to `needs`."""
        if needs <= self._durable or not self._waits:
            self._send(raft_id, message)
        else:
            self._held.append((needs, raft_id, message))

    def open_to(self, durable: int) -> None:
        """The journal is durable up to here: send what waited for it, in order."""
        self._durable = durable
        while self._held and self._held[0][0] <= durable:
            _, raft_id, message = self._held.popleft()
            self._send(raft_id, message)
