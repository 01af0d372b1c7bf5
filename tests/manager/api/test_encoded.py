"""Messages of nodes that are kept: never one of what a node was before."""

import pytest
from lib.builders import a_node
from msgspec.structs import replace

from pyswarm.manager.api import encoded
from pyswarm.manager.api.encoded import EncodedNodes
from pyswarm.proto.codec.messages import to_message
from pyswarm.proto.model.states import NodeState
from pyswarm.proto.v1 import types_pb2


def test_a_node_is_put_into_a_message_once_until_it_changes():
    kept, node = EncodedNodes(), a_node("n1")
    assert kept.of(node) is kept.of(node)
    down = replace(node, status=replace(node.status, state=NodeState.DOWN))
    assert kept.of(down) == to_message(down, types_pb2.Node)
    assert kept.of(node) == to_message(node, types_pb2.Node)


def test_no_more_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoded, "NODES_KEPT", 2)
    kept, nodes = EncodedNodes(), [a_node(f"n{n}") for n in range(3)]
    first = kept.of(nodes[0])
    for node in nodes[1:]:
        kept.of(node)
    assert kept.of(nodes[2]) is kept.of(nodes[2])
    assert kept.of(nodes[0]) is not first
    assert kept.of(nodes[0]) == first
