"""Every RPC says who may call it: without an `access` option a method can be called by nobody."""

import re
from importlib import import_module

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from lib.source import ROOT

from pyswarm.proto.v1 import options_pb2

VERBS_THAT_LOOK = {"Get", "List", "Listen", "Watch", "Subscribe", "Explain", "Plan", "Backup", "Ping", "Report"}


def every_method() -> list[MethodDescriptor]:
    files = sorted(p.stem for p in (ROOT / "proto" / "v1").glob("*.proto"))
    return [
        method
        for stem in files
        for service in import_module(f"pyswarm.proto.v1.{stem}_pb2").DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


@pytest.mark.parametrize("method", every_method(), ids=lambda m: m.full_name.removeprefix("pyswarm.v1."))
def test_a_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    options = method.GetOptions()
    assert options.HasExtension(options_pb2.access)
    access = options.Extensions[options_pb2.access]
    assert access.roles or access.anonymous or access.local
    assert set(access.roles) <= {"manager", "worker"}


@pytest.mark.parametrize("method", every_method(), ids=lambda m: m.full_name.removeprefix("pyswarm.v1."))
def test_a_method_that_only_looks_says_so(method: MethodDescriptor) -> None:
    """Whoever is cut off under a call must know whether it may have changed something."""
    verb = re.match("[A-Z][a-z]*", method.name)
    assert verb is not None
    if method.containing_service.name != "Runtime":  # nobody hands its calls on
        only_looks = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        assert only_looks == (verb[0] in VERBS_THAT_LOOK), "`option idempotency_level = NO_SIDE_EFFECTS;` is for these"


def test_only_the_bootstrap_service_may_be_called_without_a_certificate() -> None:
    anonymous = {
        m.containing_service.name for m in every_method() if m.GetOptions().Extensions[options_pb2.access].anonymous
    }
    assert anonymous == {"Bootstrap"}


def test_workers_may_only_call_what_concerns_their_own_node() -> None:
    for_workers = {
        m.containing_service.name
        for m in every_method()
        if "worker" in m.GetOptions().Extensions[options_pb2.access].roles
    }
    assert for_workers == {"CA", "Dispatcher", "LogBroker"}


def test_the_runtime_can_be_reached_on_its_own_socket_only() -> None:
    runtime = [m for m in every_method() if m.containing_service.name == "Runtime"]
    assert runtime
    for method in runtime:
        access = method.GetOptions().Extensions[options_pb2.access]
        assert access.local
        assert not access.roles
