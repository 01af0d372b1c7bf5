"""What becomes of a group whose leader is killed again and again, and of one whose processors others take.

The members write by themselves, each while it leads, and say when the first write of a leadership was acknowledged
(consensus_member.py); all read the one monotonic clock of this machine.
"""

import subprocess
import sys
import time

from consensus_group import Group, Process

WRITERS = 16
LEADS_SECONDS = 0.3
"""How long each leader is left alone before it is killed."""


def kills(ours: Group, count: int) -> list[float]:
    """Kill the leader `count` times; return how long it took each time until the next acknowledged write."""
    for process in ours.processes:
        process.tell("take over", writers=WRITERS)
    return [_fail_over(ours) for _ in range(count)]


def elections_under_load(ours: Group, seconds: float) -> tuple[int, float]:
    """Return how many elections there were, and writes a second, while two others take all the processor they get."""
    takers = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        leader = ours.leader()
        before = leader.ask("status")["term"]
        leader.tell("load", outstanding=WRITERS, value_bytes=256, changes=1, seconds=seconds)
        rate = leader.answer(seconds + 60)["rate"]
        return ours.leader().ask("status")["term"] - before, rate
    finally:
        for taker in takers:
            taker.kill()
            taker.wait()


def _fail_over(ours: Group) -> float:
    """Kill the leader; return the seconds until a write is acknowledged by the next one, with the dead one back."""
    leader = _next_leader(ours)
    time.sleep(LEADS_SECONDS)
    at = time.monotonic()
    leader.kill()
    survivors = [process for process in ours.processes if process is not leader]
    end = at + 60
    while time.monotonic() < end:
        for process in survivors:
            while not process.answers.empty():
                told = process.answer()
                if told.get("acknowledged_at", 0.0) > at:
                    leader.start()
                    leader.answer()
                    leader.tell("take over", writers=WRITERS)
                    ours.leading = process
                    return float(told["acknowledged_at"]) - at
        time.sleep(0.002)
    raise TimeoutError("nobody took over")


def _next_leader(ours: Group) -> Process:
    """Return who acknowledged writes last, once all three take part again."""
    if ours.leading is None:
        end = time.monotonic() + 30
        while time.monotonic() < end and ours.leading is None:
            ours.leading = next((p for p in ours.processes if not p.answers.empty()), None)
            time.sleep(0.01)
    assert ours.leading is not None, "nobody leads"
    return ours.leading
