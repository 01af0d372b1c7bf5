"""The capabilities of this very process, as the kernel tells them."""

from pathlib import Path

from pyswarm.agent_runtime.kernel import capabilities


def own_capabilities(which: str) -> frozenset[str]:
    """Return the names in one of our sets: `CapEff`, `CapPrm`, `CapBnd`, as /proc/self/status calls them."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return capabilities.from_mask(int(status[which], 16))
