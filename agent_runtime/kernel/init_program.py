"""Where the init of containers that ask for one lies: `_init.c`, compiled where the build found a compiler."""

from pathlib import Path

INIT_PROGRAM = Path(__file__).with_name("pyswarm-init")
