"""Published ports: given once, kept, and refused by name when they are taken."""

import pytest
from lib.builders import a_port, a_service, a_service_spec
from msgspec.structs import replace

from pyswarm.manager.allocator.ports import DYNAMIC_PORTS, allocate_ports
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.errors import AlreadyExists
from pyswarm.proto.model.states import PublishMode

INGRESS, HOST = PublishMode.INGRESS, PublishMode.HOST


def test_a_port_that_was_not_chosen_is_given_and_kept():
    web = a_service("web", ports=(a_port(DYNAMIC_PORTS.start, mode=INGRESS),))
    seen = Snapshot.of(web, version=1)
    spec = a_service_spec("api", ports=(a_port(0, mode=INGRESS),))
    (given,) = allocate_ports(seen, spec, None)
    assert given.published_port == DYNAMIC_PORTS.start + 1
    api = replace(a_service("api"), ports=(given,))
    assert allocate_ports(Snapshot.of(web, api, version=1), spec, api) == (given,)


@pytest.mark.parametrize(
    ("mine", "theirs", "conflict"),
    [(INGRESS, INGRESS, True), (HOST, INGRESS, True), (INGRESS, HOST, True), (HOST, HOST, False)],
)
def test_conflicts(mine, theirs, conflict):
    seen = Snapshot.of(a_service("web", ports=(a_port(8080, mode=theirs),)), version=1)
    spec = a_service_spec("api", ports=(a_port(8080, mode=mine),))
    if conflict:
        with pytest.raises(AlreadyExists, match="8080/tcp is already published by service web"):
            allocate_ports(seen, spec, None)
    else:
        assert allocate_ports(seen, spec, None) == spec.endpoint_spec.ports
