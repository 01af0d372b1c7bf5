"""Who may call each method, read from the options in the proto files (pure). What states no access is closed to all."""

from collections.abc import Mapping
from functools import cache

from google.protobuf.descriptor_pb2 import MethodOptions
from msgspec import Struct

from pyswarm.proto.model.states import Role
from pyswarm.proto.rpc.identity import Caller
from pyswarm.proto.v1 import (
    ca_pb2,
    control_pb2,
    dispatcher_pb2,
    logs_pb2,
    options_pb2,
    raft_pb2,
    runtime_pb2,
)

_FILES = (ca_pb2, control_pb2, dispatcher_pb2, logs_pb2, raft_pb2, runtime_pb2)
_ROLE_NAMES = {"manager": Role.MANAGER, "worker": Role.WORKER}


class Rule(Struct, frozen=True):
    roles: frozenset[Role] = frozenset()
    anonymous: bool = False
    local: bool = False
    leader_only: bool = False
    only_looks: bool = False
    """Whether the method changes nothing: a call that was cut off then had no effect, whatever became of it."""

    def admits(self, caller: Caller | None) -> bool:
        """Whether this caller may call; None is a caller without an identity."""
        if caller is None:
            return self.anonymous
        return self.local if caller.is_local else caller.role in self.roles

    def __str__(self) -> str:
        names = [name for name, role in _ROLE_NAMES.items() if role in self.roles]
        return ", ".join(names + ["anyone"] * self.anonymous + ["the local administrator"] * self.local) or "nobody"


CLOSED = Rule()


@cache
def rules() -> Mapping[str, Rule]:
    """Return {"/package.Service/Method": rule} for every method of the protocol that states its access."""
    found = {}
    for module in _FILES:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                options = method.GetOptions()
                if options.HasExtension(options_pb2.access):
                    access = options.Extensions[options_pb2.access]
                    found[f"/{service.full_name}/{method.name}"] = Rule(
                        roles=frozenset(_ROLE_NAMES[name] for name in access.roles),
                        anonymous=access.anonymous,
                        local=access.local,
                        leader_only=options.Extensions[options_pb2.leader_only],
                        only_looks=options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
                    )
    return found


def rule_of(method: str) -> Rule:
    """Return the rule of a method by its full path; unknown methods are closed."""
    return rules().get(method, CLOSED)
