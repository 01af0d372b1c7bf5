"""What a container's state directory looks like on the disk, whatever the daemon was started with."""

import os
from pathlib import Path

from pyswarm.agent_runtime.container.record import Created, Record
from pyswarm.agent_runtime.container.state_directory import StateDirectory
from pyswarm.proto.v1 import runtime_pb2 as pb


def test_a_tight_umask_of_the_daemon_does_not_shut_users_out_of_the_containers_root(tmp_path: Path):
    state = StateDirectory(tmp_path / "containers")
    before = os.umask(0o077)
    try:
        state.prepare()
        state.create(Record("c1", pb.ContainerConfig(image="web"), Created(1.0, "sha256:0", (), {})))
    finally:
        os.umask(before)
    assert (state.path("c1") / "upper").stat().st_mode & 0o7777 == 0o755
    assert state.path("c1").stat().st_mode & 0o7777 == 0o700
