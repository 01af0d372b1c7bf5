"""Messages of nodes, kept for the next who asks: there are thousands of nodes, and they seldom change."""

from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.model.objects import Node
from pyswarm.proto.v1 import types_pb2

NODES_KEPT = 10_000


class EncodedNodes:
    """Used on one event loop. The messages are not to be changed."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Node, types_pb2.Node]] = {}

    def of(self, node: Node) -> types_pb2.Node:
        """Return the message of a node as it is, made anew when it is another object than last time."""
        kept = self._kept.get(node.id)
        if kept is not None and kept[0] is node:
            return kept[1]
        message = to_message(node, types_pb2.Node)
        if len(self._kept) >= NODES_KEPT and node.id not in self._kept:
            del self._kept[next(iter(self._kept))]
        self._kept[node.id] = (node, message)
        return message
