"""The files a task sees its secrets and configs in: in memory only, owned as asked, there until the task is gone."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pyswarm.proto.errors import Unavailable
from pyswarm.proto.model.spec import ConfigReference, ContainerSpec, FileTarget, SecretReference
from pyswarm.worker.secrets.files import SecretFiles

pytestmark = pytest.mark.kernel

SPEC = ContainerSpec(
    secrets=(SecretReference("s1", "key", FileTarget("key", "7", "8", 0o400)),),
    configs=(ConfigReference("c1", "site", FileTarget("/etc/site.conf")),),
)


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SecretFiles]:
    files = SecretFiles(tmp_path / "secrets")
    yield files
    await files.remove_everything()


async def test_files_are_in_memory_with_the_owner_and_mode_that_were_asked_for(files: SecretFiles, tmp_path: Path):
    files.take({"s1": b"K", "c1": b"S"})
    key, site = await files.write("t1", SPEC)
    assert (key.target, site.target) == ("/run/secrets/key", "/etc/site.conf")
    assert key.read_only
    assert site.read_only
    found = os.stat(key.source)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (7, 8, 0o400)
    assert Path(key.source).read_bytes() == b"K"
    assert Path(site.source).read_bytes() == b"S"
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", key.source], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert kind == "tmpfs"
    assert (tmp_path / "secrets").stat().st_mode & 0o7777 == 0o700


async def test_a_task_waits_for_what_has_not_come_and_is_told_its_name(files: SecretFiles):
    files.take({"s1": b"K"})
    with pytest.raises(Unavailable, match="config site has not come"):
        await files.write("t1", SPEC)
    files.take({"c1": b"S"})
    assert len(await files.write("t1", SPEC)) == 2


async def test_a_restarted_agent_finds_the_files_again_with_no_manager_in_reach(files: SecretFiles, tmp_path: Path):
    files.take({"s1": b"K", "c1": b"S"})
    written = await files.write("t1", SPEC)
    restarted = SecretFiles(tmp_path / "secrets")
    assert await restarted.write("t1", SPEC) == written
    with pytest.raises(Unavailable):
        await restarted.write("t2", SPEC)


async def test_a_tasks_files_go_with_it_and_everything_goes_with_the_node(files: SecretFiles, tmp_path: Path):
    files.take({"s1": b"K", "c1": b"S"})
    (key, _) = await files.write("t1", SPEC)
    files.remove("t1")
    assert not Path(key.source).exists()
    await files.write("t2", SPEC)
    await files.remove_everything()
    assert not (tmp_path / "secrets").is_mount()
    with pytest.raises(Unavailable):
        await files.write("t3", SPEC)


async def test_a_task_without_secrets_needs_no_tmpfs(files: SecretFiles, tmp_path: Path):
    assert await files.write("t1", ContainerSpec()) == ()
    assert not (tmp_path / "secrets").exists()


async def test_a_complete_set_replaces_what_was_known(files: SecretFiles):
    files.take({"s1": b"K", "c1": b"S"})
    files.keep_only({"c1": b"S"})
    with pytest.raises(Unavailable, match="secret key"):
        await files.write("t1", SPEC)


IN_PLACE = ContainerSpec(
    secrets=(SecretReference("s1", "key", FileTarget("key", "7", "8", 0o400, in_place=True, signal="SIGHUP")),),
    configs=(ConfigReference("c1", "site", FileTarget("/run/secrets/site")),),
)


def _in_version(id: str) -> ContainerSpec:
    (key,) = IN_PLACE.secrets
    return replace(IN_PLACE, secrets=(replace(key, secret_id=id),))


async def test_a_file_is_replaced_whole_under_the_eyes_of_a_container(files: SecretFiles, tmp_path: Path):
    files.take({"s1": b"old", "c1": b"S"})
    (directory,) = await files.write("t1", IN_PLACE)
    assert directory.target == "/run/secrets"
    # A bind mount, as the container has one.
    seen = tmp_path / "seen"
    seen.mkdir()
    subprocess.run(["mount", "--bind", directory.source, str(seen)], check=True)
    try:
        with (seen / "key").open("rb") as opened:
            files.take({"s2": b"something new"})
            assert files.replace("t1", _in_version("s2")) == ("SIGHUP",)
            assert opened.read() == b"old", "who has it open goes on reading what it opened"
        assert (seen / "key").read_bytes() == b"something new"
        found = (seen / "key").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (7, 8, 0o400)
        assert sorted(os.listdir(seen)) == ["key", "site"]
        assert files.replace("t1", _in_version("s2")) == (), "it has this version already"
    finally:
        subprocess.run(["umount", str(seen)], check=True)


async def test_a_version_that_has_not_come_leaves_the_file_as_it_is(files: SecretFiles):
    files.take({"s1": b"old", "c1": b"S"})
    (directory,) = await files.write("t1", IN_PLACE)
    assert files.replace("t1", _in_version("s2")) == ()
    assert (Path(directory.source) / "key").read_bytes() == b"old"
