"""`pyswarm node update --advertise-addr`: this machine's node is found under another address from now on.

pyswarmd does it, because the managers may be out of reach from the old address; they learn the new one from the node.
"""

import socket

from pyswarm.manager.cli.client.daemon import ensure_running
from pyswarm.manager.cli.client.supervisor import ask
from pyswarm.manager.cli.commands.shared import say
from pyswarm.manager.cli.settings import Settings
from pyswarm.proto.errors import InvalidArgument

TIMEOUT_SECONDS = 180.0


async def readdress(settings: Settings, name: str, address: str) -> None:
    """Return once the node takes part in its cluster again.

    Raises:
        InvalidArgument: `name` is another machine's node.
        FailedPrecondition: this machine belongs to no cluster.
        Unavailable: it did not get in touch with its cluster; the new address is kept.
    """
    await ensure_running(settings)
    here = await ask(settings, "status", timeout_seconds=10.0)
    if here.get("node_id") and name not in ("self", here["node_id"], socket.gethostname()):
        raise InvalidArgument(
            f"{name} is not this machine's node, and only its own machine knows where it is",
            remedy=f"On that machine: `pyswarm node update --advertise-addr {address} self`.",
        )
    await ask(settings, "readdress", timeout_seconds=TIMEOUT_SECONDS, say=say, advertise_addr=address)
