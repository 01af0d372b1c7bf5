"""What daemon and spawner say to each other: one JSON object a datagram on a SEQPACKET socket, descriptors beside it.

    daemon -> spawner
      {"op": "start", "id", "into_cgroup", "terminal"}
                                                descriptors: program (memfd), the container's directory, if
                                                `into_cgroup` its cgroup v2 directory, if `terminal` (else left out)
                                                our end of it, then the program's slots
      {"op": "hold", "id", "into_cgroup", "terminal"}     as start, with a program that stops at the gate once more;
                                                nothing is written down, and it ends with this daemon's connection
      {"op": "go", "id"}         let one that is held go on: from here on it is as if it had been started now
      {"op": "drop", "id"}       let one that is held end
      {"op": "exec", "id", "into_cgroup"}       as start, for another process in a running container, but without a
                                                directory: nothing is written down, and it is forgotten as soon as it
                                                has ended. The first slot is a pidfd of the container's first process
      {"op": "terminal", "id"}   hand out our end of a container's terminal
      {"op": "release", "id"}    the exit record and all output are in safe hands: forget the container
    spawner -> daemon
      {"event": "hello", "version", "pid", "containers": [id, ...], "holds_terminals", "holds_created"}
                                                          first, to every daemon that connects
      {"event": "held", "id"}                             it is all set up and waits at the gate
      {"event": "started", "id", "pid", "start_ticks", "started_at"}    it has reached execve; process.json is on disk
      {"event": "failed", "id", "index", "errno"}         it has not: which operation failed; it is gone (index -1: it
                                                          could not be cloned, or none is held under that id)
      {"event": "terminal", "id"}                         beside it the descriptor; none: it has no terminal
      {"event": "exit", "id", "status"}                   a wait status; exit.json is on disk already

`process.json` and `exit.json` in the container's directory are the durable half: they say the same to a daemon that
was not there. Standard library only, shared by both sides.
"""

import json
import os
import socket
from typing import Any

VERSION = 2
LARGEST_MESSAGE_BYTES = 128 * 1024
MOST_DESCRIPTORS = 250
"""The kernel passes at most 253 descriptors with one message."""

PROCESS_FILE = "process.json"
EXIT_FILE = "exit.json"


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return the next message and its descriptors; None at the end. Raises BlockingIOError when there is none yet."""
    data, descriptors, _, _ = socket.recv_fds(
        connection, LARGEST_MESSAGE_BYTES, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    return (json.loads(data) if data else None), descriptors


def write_record(directory: int, name: str, record: dict[str, Any]) -> None:
    """Replace a small file in the directory open as `directory`, so that it is there whole or not at all."""
    aside = f"{name}.new"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, encode(record))
    finally:
        os.close(descriptor)
    os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
