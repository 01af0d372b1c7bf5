"""A manager daemon in place of the real one: opens with the key in `<root>/right-key`, reports as a member, and stays.

python -m lib.locked_daemon --root ROOT [--unlock-keys-on-stdin]
"""

import argparse
import json
import signal
import socket
import sys
from pathlib import Path

from pyswarm.proto.paths import NodePaths
from pyswarm.proto.unlock_key import LOCKED_EXIT_STATUS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--unlock-keys-on-stdin", action="store_true")
    arguments = parser.parse_args()
    keys = sys.stdin.read().split() if arguments.unlock_keys_on_stdin else []
    if (Path(arguments.root) / "right-key").read_text() not in keys:
        sys.exit(LOCKED_EXIT_STATUS)
    with socket.socket(socket.AF_UNIX) as pyswarmd:
        pyswarmd.connect(str(NodePaths(Path(arguments.root)).supervisor_socket))
        pyswarmd.sendall(json.dumps({"op": "joined"}).encode() + b"\n")
        pyswarmd.recv(1000)
    signal.pause()


if __name__ == "__main__":
    main()
