"""What became of the containers while no daemon was there: decided from the disk, the processes and the spawner.

    outcome.json, or never cloned            nothing happened: SETTLED
    exit.json                                it ended, the record says how: ENDED
    its very process lives                   it runs: RUNNING
    the spawner still holds it               its exit is about to be told: RUNNING
    process gone, no record                  nobody can know how it ended, or the machine went down: LOST

Must be asked after the spawner said hello: whatever it reaped before is on disk by then, the rest it will tell.
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum, auto

from pyswarm.agent_runtime.container.record import Record
from pyswarm.agent_runtime.container.state_directory import Found
from pyswarm.agent_runtime.kernel.process import open_pidfd


class Verdict(Enum):
    SETTLED = auto()
    ENDED = auto()
    RUNNING = auto()
    LOST = auto()


@dataclass(frozen=True)
class Discovery:
    """A container and what became of it. `pidfd` is open when it is RUNNING (and not a zombie's last moment)."""

    record: Record
    verdict: Verdict
    pidfd: int | None = None
    reason: str = ""


def judge(found: Found, *, alive: bool, owned: bool, machine: str) -> tuple[Verdict, str]:
    """Return the verdict and, for LOST, what to tell people. Pure."""
    if found.record.outcome is not None or found.process is None:
        return Verdict.SETTLED, ""
    if found.exit is not None:
        return Verdict.ENDED, ""
    if found.process.machine != machine:
        return Verdict.LOST, "the machine went down while it was running"
    if alive or owned:
        return Verdict.RUNNING, ""
    return Verdict.LOST, "it ended while neither daemon nor spawner was there: its exit status was lost"


def discover(found: list[Found], *, owned: Set[str], machine: str) -> list[Discovery]:
    """Judge every container, opening a pidfd for each that runs."""
    discoveries = []
    for container in found:
        undecided = container.record.outcome is None and container.process is not None and container.exit is None
        same_machine = container.process is not None and container.process.machine == machine
        pidfd = open_pidfd(container.process.process) if undecided and same_machine and container.process else None
        verdict, reason = judge(container, alive=pidfd is not None, owned=container.record.id in owned, machine=machine)
        discoveries.append(Discovery(container.record, verdict, pidfd, reason))
    return discoveries
