"""Start a spawner: `python -I -S -E spawner_main.py SOCKET_FD native|python SCRATCH_DIRECTORY`.

Run as a file, without site-packages, so that the process stays small: the package is put together by hand from where
this file lies. Whatever the spawner imports, it imports here; afterwards it has no file system to import from.
"""

import sys
from types import ModuleType

_HERE = __file__.rpartition("/")[0]
_AGENT_RUNTIME = _HERE.rpartition("/")[0]


def _package(name: str, folder: str) -> None:
    module = ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


_package("pyswarm", _AGENT_RUNTIME.rpartition("/")[0])

from pyswarm.agent_runtime.container import spawner  # noqa: E402

if __name__ == "__main__":
    spawner.main(socket_descriptor=int(sys.argv[1]), native=sys.argv[2] == "native", scratch=sys.argv[3])
