"""Published ports as Docker lists them."""

from collections.abc import Sequence

from pyswarm.proto.model.spec import PortConfig


def ports_text(ports: Sequence[PortConfig]) -> str:
    """Return `*:8080->80/tcp, *:8443->443/tcp`; a port that is not published yet is left out."""
    published = sorted(ports, key=lambda p: (p.published_port, p.protocol))
    return ", ".join(
        f"*:{port.published_port}->{port.target_port}/{port.protocol}" for port in published if port.published_port
    )
