"""How certificates name a role. Apart from identity.py, because whoever only opens a channel needs no cryptography."""

from pyswarm.proto.model.states import Role

OU_OF_ROLE = {Role.MANAGER: "swarm-manager", Role.WORKER: "swarm-worker"}
"""The organizational unit of a certificate's subject."""

MANAGER_NAME = OU_OF_ROLE[Role.MANAGER]
"""The server name clients ask for. It is the role, not a host name, so a worker's certificate cannot serve."""
