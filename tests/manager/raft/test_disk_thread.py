"""Both threads that write the journal: the order of what they are given, how failures are told, how they end."""

import asyncio
import errno
import fcntl
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lib.raft_lab import RaftLab, caught_up, eventually

from pyswarm.manager.raft import disk_thread
from pyswarm.manager.raft.disk import REAL_DISK, RealDisk
from pyswarm.manager.raft.disk_thread import PATIENCE_SECONDS, DiskThread, NativeDiskThread
from pyswarm.manager.raft.settings import RaftSettings
from pyswarm.manager.raft.wal import FILL_BYTES, Wal
from pyswarm.manager.sealing.sealer import Sealer

SEALER = Sealer(b"d" * 32)
STALL_SECONDS = 2.0
DISK_BYTES = 64 * 1024 * 1024
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878

needs_native = pytest.mark.skipif(not disk_thread.HAS_NATIVE, reason="the C extension was not built: no compiler")
both = pytest.mark.parametrize("make", [DiskThread, pytest.param(NativeDiskThread, marks=needs_native)])


class Watched(RealDisk):
    """Counts the syncs that go through the port: those of the native thread do not."""

    def __init__(self) -> None:
        self.syncs = 0

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        super().sync(descriptor)


def opened(directory: Path, disk: RealDisk = REAL_DISK, *, segment_bytes: int = 1 << 20) -> Wal:
    wal = Wal(directory, SEALER, segment_bytes=segment_bytes, disk=disk)
    list(wal.recover())
    return wal


def read(directory: Path) -> list[bytes]:
    return [content for _, content in Wal(directory, SEALER, segment_bytes=1 << 20).recover()]


async def append(thread: DiskThread, wal: Wal, content: bytes, mark: int, *, may_wait: bool = True) -> None:
    """Append and return when it was told; raises what was told."""
    told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(failure: BaseException | None) -> None:
        if failure is not None:
            told.set_exception(failure)
        else:
            told.set_result(None)

    thread.append(wal, content, mark, tell, may_wait=may_wait)
    async with asyncio.timeout(10):
        await told


@both
@pytest.mark.parametrize("may_wait", [True, False])
async def test_frames_and_jobs_are_done_in_the_order_in_which_they_were_given(
    tmp_path: Path, make: Callable[[], DiskThread], may_wait: bool
) -> None:
    """Small segments: every few frames the thread has more to do than to write one."""
    thread, wal, loop = make(), opened(tmp_path, segment_bytes=400), asyncio.get_running_loop()
    sizes = []
    for number in range(60):
        written = asyncio.ensure_future(append(thread, wal, b"%03d" % number, number, may_wait=may_wait))
        await asyncio.sleep(0)
        # Given while the frame is under way, so it is there by then.
        size = loop.run_in_executor(thread, lambda: wal.used_bytes)
        if number % 7 == 3:
            ended = loop.run_in_executor(thread, wal.end_segment)
            await ended
        await written
        sizes.append(await size)
    await loop.run_in_executor(thread, wal.close)
    thread.shutdown(wait=False)
    assert read(tmp_path) == [b"%03d" % number for number in range(60)]
    assert sizes == sorted(set(sizes))


@needs_native
async def test_a_frame_that_fits_its_segment_is_written_by_the_native_thread(tmp_path: Path) -> None:
    disk = Watched()
    thread, wal = NativeDiskThread(), opened(tmp_path, disk)
    await append(thread, wal, b"first", 1)
    began = disk.syncs
    for number in range(20):
        await append(thread, wal, b"%d" % number, number)
    assert disk.syncs == began
    await asyncio.get_running_loop().run_in_executor(thread, wal.close)
    thread.shutdown(wait=False)
    assert len(read(tmp_path)) == 21


@both
@pytest.mark.parametrize("may_wait", [True, False])
async def test_a_full_disk_is_told_with_its_number(
    tmp_path: Path, make: Callable[[], DiskThread], may_wait: bool
) -> None:
    thread, wal = make(), opened(tmp_path)
    await append(thread, wal, b"fits", 1, may_wait=may_wait)
    assert wal._descriptor is not None
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, wal._descriptor)
    os.close(full)
    with pytest.raises(OSError) as told:
        await append(thread, wal, b"does not", 2, may_wait=may_wait)
    assert told.value.errno == errno.ENOSPC
    thread.shutdown(wait=False)


@both
async def test_a_sync_that_fails_is_told_with_its_number(tmp_path: Path, make: Callable[[], DiskThread]) -> None:
    thread, wal = make(), opened(tmp_path)
    await append(thread, wal, b"fits", 1)
    assert wal._descriptor is not None
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, wal._descriptor)
    os.close(null)
    with pytest.raises(OSError) as told:
        await append(thread, wal, b"is taken and cannot be synced", 2)
    assert told.value.errno == errno.EINVAL
    thread.shutdown(wait=False)


@both
async def test_what_was_given_is_done_and_told_when_it_is_drained(
    tmp_path: Path, make: Callable[[], DiskThread]
) -> None:
    thread, wal = make(), opened(tmp_path)
    await append(thread, wal, b"first", 1)
    told: list[BaseException | None] = []
    thread.append(wal, b"last", 2, told.append, may_wait=False)
    await thread.drain()
    assert told == [None]
    await asyncio.get_running_loop().run_in_executor(thread, wal.close)
    thread.shutdown(wait=False)
    assert read(tmp_path) == [b"first", b"last"]


@both
async def test_its_threads_and_descriptors_end_with_it(tmp_path: Path, make: Callable[[], DiskThread]) -> None:
    before = held_by_this_process()
    thread, wal = make(), opened(tmp_path)
    await append(thread, wal, b"x", 1)
    assert held_by_this_process() != before
    await asyncio.get_running_loop().run_in_executor(thread, wal.close)
    thread.shutdown(wait=False)
    del thread
    await eventually(lambda: held_by_this_process() == before)


def held_by_this_process() -> tuple[set[str], set[str]]:
    """Return its threads and its descriptors."""
    with os.scandir("/proc/self/task") as tasks, os.scandir("/proc/self/fd") as descriptors:
        return {task.name for task in tasks}, {descriptor.name for descriptor in descriptors}


@needs_native
def test_a_writer_takes_one_write_at_a_time() -> None:
    from pyswarm.manager.raft._disk_writer import Writer

    writer = Writer()
    with pytest.raises(ValueError, match="no write has ended"):
        writer.take()
    null = os.open("/dev/null", os.O_RDWR)
    writer.post(null, b"x", 0)
    with pytest.raises(ValueError, match="under way, or was not taken back"):
        writer.post(null, b"y", 0)
    assert writer.wait(10)
    with pytest.raises(ValueError, match="under way, or was not taken back"):
        writer.post(null, b"y", 0)
    assert writer.take() == errno.EINVAL
    assert writer.arm(), "nothing is under way"
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.post(null, b"y", 0)
    os.close(null)


@needs_native
async def test_a_segment_is_filled_with_zeros_ahead_of_its_frames(tmp_path: Path) -> None:
    thread, wal = NativeDiskThread(), opened(tmp_path, segment_bytes=2 * FILL_BYTES)
    contents = [b"%d" % number * 30_000 for number in range(8)]
    for number, content in enumerate(contents):
        await append(thread, wal, content, number)
        await thread.drain()
        with next(tmp_path.glob("*.wal")).open("rb") as segment:
            unwritten = os.lseek(segment.fileno(), wal.used_bytes, os.SEEK_HOLE)
        # The frame that begins a segment is not written by the native thread.
        assert number == 0 or unwritten - wal.used_bytes >= FILL_BYTES // 2
    await asyncio.get_running_loop().run_in_executor(thread, wal.close)
    thread.shutdown(wait=False)
    assert read(tmp_path) == contents


@pytest.fixture
def marked_file(tmp_path: Path) -> Iterator[int]:
    """The descriptor of a file full of b"x"."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"x" * 2_000_000, 0)
    yield descriptor
    os.close(descriptor)


@needs_native
def test_what_is_filled_is_what_was_asked_for_and_later_writes_stay(marked_file: int) -> None:
    from pyswarm.manager.raft._disk_writer import Writer

    writer = Writer()
    for _ in range(20):
        os.pwrite(marked_file, b"x" * 1_100_000, 0)
        writer.post(marked_file, b"before", 0, 4096, 1_004_096)
        assert writer.wait(10)
        assert writer.take() == 0
        writer.post(marked_file, b"after", 4096)
        assert writer.wait(-1)
        assert writer.take() == 0
        expected = b"before".ljust(4096, b"x") + b"after".ljust(1_000_000, b"\0")
        assert os.pread(marked_file, 1_100_000, 0) == expected.ljust(1_100_000, b"x")
    writer.close()


@needs_native
def test_whoever_waits_for_ever_waits_until_all_is_filled(marked_file: int) -> None:
    from pyswarm.manager.raft._disk_writer import Writer

    writer = Writer()
    for _ in range(20):
        os.pwrite(marked_file, b"x" * 2_000_000, 0)
        writer.post(marked_file, b"frame", 0, 4096, 2_000_000)
        assert writer.wait(-1)
        assert os.pread(marked_file, 2_000_000, 4096) == bytes(2_000_000 - 4096)
        assert writer.take() == 0
    writer.close()


@needs_native
def test_what_cannot_be_filled_is_told_of_the_next_write(marked_file: int) -> None:
    from pyswarm.manager.raft._disk_writer import Writer

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = Writer()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        writer.post(marked_file, b"frame", 0, 999_000, 1_999_000)
        assert writer.wait(-1)
        assert writer.take() == 0
        writer.post(marked_file, b"next", 100)
        assert writer.wait(10)
        assert writer.take() == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.close()
    assert os.pread(marked_file, 4, 100) == b"xxxx"


@contextmanager
def own_file_system(directory: Path) -> Iterator[Path]:
    image, target = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    target.mkdir()
    subprocess.run(["mount", "-o", "loop,noatime", str(image), str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


@contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """No write to the file system of `directory` returns within, as with a disk that does not answer."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, FITHAW, 0)
    finally:
        os.close(descriptor)


@pytest.mark.kernel
@pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_native)])
async def test_a_file_system_that_stands_still_costs_no_leadership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    """The disks of all members at once, for two seconds, below everything that is ours."""
    monkeypatch.setattr(disk_thread, "HAS_NATIVE", native)
    with own_file_system(tmp_path) as directory:
        lab = RaftLab(directory, RaftSettings(segment_bytes=1 << 20))
        try:
            leader = await lab.first()
            for _ in range(2):
                await lab.join()
            index, _ = await leader.engine.propose(b"before")
            for member in lab.members:
                await caught_up(member, index)
            assert isinstance(leader.engine._disk, NativeDiskThread) == native
            term = leader.engine.leadership.term
            with frozen(directory):
                write = asyncio.ensure_future(leader.engine.propose(b"during"))
                longest, ends = 0.0, time.monotonic() + STALL_SECONDS
                while (before := time.monotonic()) < ends:
                    await asyncio.wait({write}, timeout=0.02)
                    longest = max(longest, time.monotonic() - before - 0.02)
                    assert leader.engine.leadership.is_leader
                assert not write.done(), "a write was acknowledged before it was on any disk"
            await write
            assert longest < 0.25 + PATIENCE_SECONDS, f"the loop stood still for {longest:.2f} s"
            assert (leader.engine.leadership.is_leader, leader.engine.leadership.term) == (True, term)
        finally:
            await lab.stop()
