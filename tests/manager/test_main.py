"""How the manager's process ends when a part of it has failed."""

import os
import subprocess
import sys

DIES = """
import asyncio, threading
from pyswarm.manager.main import run

def work():
    raise ValueError("a fault")

async def wait_for_ever():
    threading.Thread(target=work, name="raft-disk", daemon=True).start()
    await asyncio.get_running_loop().create_future()

run(wait_for_ever())
"""


def test_a_thread_that_dies_ends_the_manager_and_says_so():
    ended = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == os.EX_SOFTWARE
    assert "ValueError: a fault" in ended.stderr
    assert "a thread of the manager has died" in ended.stderr
    assert "raft-disk" in ended.stderr
