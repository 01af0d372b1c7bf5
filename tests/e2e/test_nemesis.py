"""Managers that are killed, stopped, cut off, out of disk and out of time keep every promise they make.

A bounded part of `make nemesis`, which goes on for as long as it is told (nemesis.py).
"""

import json
import os
import sys
import time
from datetime import datetime

import pytest
from lib.nemesis_host import NemesisHost
from lib.nemesis_run import NemesisOptions, nemesis_lab, run_nemesis

SECONDS = 18.0


@pytest.mark.parametrize("managers", [3, 5])
def test_what_clients_are_told_is_linearizable_whatever_happens_to_the_managers(
    managers: int, tmp_path_factory: pytest.TempPathFactory, record_property
):
    seed = int(os.environ.get("NEMESIS_SEED", "0")) or int.from_bytes(os.urandom(3))
    directory = tmp_path_factory.mktemp("n")
    options = NemesisOptions(seed, rounds=1000, managers=managers, rounds_of_a_register=5, seconds_max=SECONDS)
    report = run_nemesis(options, directory)
    record_property("nemesis", str(report))
    again = f"NEMESIS_SEED={seed} repeats the plan; the history is in {directory}\n{report}"
    assert report.violation is None, f"{report.violation}\n{again}"
    assert report.unexpected == [], again
    # It would prove nothing if nobody had been told anything, or if nothing had been broken.
    assert report.acknowledged_writes >= report.rounds, again
    assert report.terms >= 1, again


HEARD = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
    ear.bind(("0.0.0.0", 9999))
    ear.settimeout(float(sys.argv[1]))
    print("listening", flush=True)
    try:
        print(ear.recv(100).decode())
    except TimeoutError:
        print("nothing")
"""
SAY = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
    mouth.sendto(b"hello", (sys.argv[1], 9999))
"""


def _hears(listener: NemesisHost, speaker: NemesisHost) -> bool:
    """Whether one packet from one host arrives at the other, within 0.3 s."""
    ear = listener.host.popen(sys.executable, "-c", HEARD, "0.3")
    assert ear.stdout is not None
    assert ear.stdout.readline() == "listening\n"
    speaker.host.run(sys.executable, "-c", SAY, listener.host.address)
    return ear.communicate(timeout=10)[0] == "hello\n"


def _created_now(asked: NemesisHost) -> float:
    """Create a config, and return when its leader says that was, in seconds since 1970."""
    made = asked.host.run("pyswarm", "config", "create", f"probe-{time.monotonic_ns()}", "-", input="x").stdout.strip()
    inspected = json.loads(asked.host.run("pyswarm", "config", "inspect", made).stdout)
    return datetime.fromisoformat(inspected[0]["CreatedAt"]).timestamp()


def test_the_faults_are_real(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("f")
    with nemesis_lab(NemesisOptions(seed=0, rounds=0), directory) as (one, two, three):
        # Packets are lost one way only, and only between those two.
        one.drop_from({two.host.address})
        assert not _hears(one, two)
        assert _hears(two, one)
        assert _hears(one, three)
        one.drop_from(())
        assert _hears(one, two)

        # The manager's own clock jumps, not only that of programs started later: within the second it keeps the file.
        for host in (one, two, three):
            host.jump_clock(3600.0)
        deadline = time.monotonic() + 5.0
        while not 3500 < _created_now(one) - time.time() < 3700:
            assert time.monotonic() < deadline, "no manager's clock jumped within 5 s"

        # No byte is left where a manager keeps its journal.
        two.fill_disk()
        probe = two.host.state / "var/lib/pyswarm/manager/probe"
        refused = two.host.run("dd", "if=/dev/zero", f"of={probe}", "bs=4096", "count=2", "conv=fsync", check=False)
        assert "No space left" in refused.stderr
