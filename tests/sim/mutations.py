"""Switch every rule of `manager/raft/rules.py` off, one after the other, and see which test turns red for it.

    python tests/sim/mutations.py [RULE...]

The tests are those of consensus that cost milliseconds; the first that fails ends a rule's round. The rule is taken out
of `ALL_RULES` itself, so whatever is built without naming rules is built without it. Prints a line per rule, and as
last line one JSON object; exits with 1 when a test is red with all rules in force, or none without one of them.
"""

import json
import sys
from pathlib import Path

import pytest
from msgspec.structs import force_setattr

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from pyswarm.manager.raft import engine, rules  # noqa: E402 - behind the path

TESTS = tuple(
    f"tests/manager/raft/{name}.py"
    for name in ("test_guard_rules", "test_snapshot_traffic", "test_members", "test_roster", "test_outcomes")
)
DESELECTED = ("without_its_rule", "without_the_rule", "compaction_and_restart", "stops_the_member")
"""Those that switch a rule off themselves, and those that take longer than the others."""


class Reds:
    """A plugin of pytest: remembers what failed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.append(report.nodeid.rpartition("::")[2])


def reds() -> list[str]:
    """Return the tests that are red now, at most one."""
    plugin = Reds()
    wanted = " and ".join(f"not {name}" for name in DESELECTED)
    arguments = [
        "-x",
        "-q",
        "--no-header",
        "--no-summary",
        "-p",
        "no:cacheprovider",
        "--noconftest",
        "-k",
        wanted,
        "--timeout=20",
    ]
    pytest.main([*arguments, *(str(ROOT / test) for test in TESTS)], plugins=[plugin])
    return plugin.names


def main() -> int:
    wanted = sys.argv[1:] or list(rules.Rules.__struct_fields__)
    # A manager refuses to start without a rule: these tests are about what would happen if it did not.
    engine.broken = lambda _: ()  # type: ignore[attr-defined]
    found: dict[str, str] = {}
    if red := reds():
        print(f"red with all rules in force: {red}")
        return 1
    for name in wanted:
        force_setattr(rules.ALL_RULES, name, False)
        try:
            found[name] = next(iter(reds()), "")
        finally:
            force_setattr(rules.ALL_RULES, name, True)
    print()
    for name in wanted:
        print(f"{name:30} {found[name] or '- nothing turns red -'}")
    survived = [name for name in wanted if not found[name]]
    print(json.dumps({"rules": len(wanted), "survived": survived, "red": found}))
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
