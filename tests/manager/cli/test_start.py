"""How little a command loads before it asks: every command of a person waits for it."""

import subprocess
import sys

import pytest

HEAVY = {"cryptography", "uvloop", "pysyncobj", "yaml", "pyswarm.proto.rpc.server"}
"""What only managers, certificates and stack files need."""

LOADED = """
import sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
print(*sys.modules)
"""


@pytest.mark.parametrize("command", ["node", "service", "container", "info", "events"])
def test_a_command_that_only_asks_loads_nothing_heavy(command: str):
    names = [f"pyswarm.manager.cli.commands.{command}", "pyswarm.manager.cli.client.control"]
    loaded = subprocess.run([sys.executable, "-c", LOADED, *names], capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) & HEAVY == set()
