"""Log drivers that hand lines on: to a syslog, to the journal, to nobody; waiting for them or not."""

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lib.log_receivers import datagrams_at, journal_fields
from lib.runtime_host import RuntimeHost, runtime_host

from pyswarm.agent_runtime.container import log_relay
from pyswarm.agent_runtime.container.log_format import Line
from pyswarm.agent_runtime.container.log_journal import JournalSink, field_name, journal_message
from pyswarm.agent_runtime.container.log_relay import Relay
from pyswarm.agent_runtime.container.log_syslog import SyslogSink, syslog_message
from pyswarm.proto.codec.log_settings import log_settings
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument
from pyswarm.proto.model.spec import LogDriver
from pyswarm.proto.v1 import types_pb2 as types

MOMENT = 1700000000.123456


@pytest.mark.parametrize(
    ("options", "stream", "expected"),
    [
        ({}, "stdout", b"<30>Nov 14 22:13:20 tag[7]: hi"),
        ({"syslog-facility": "local0"}, "stderr", b"<131>Nov 14 22:13:20 tag[7]: hi"),
        ({"syslog-address": "udp://elsewhere"}, "stdout", b"<30>Nov 14 22:13:20 here tag[7]: hi"),
        ({"syslog-format": "rfc3164"}, "stdout", b"<30>Nov 14 22:13:20 here tag[7]: hi"),
        ({"syslog-format": "rfc5424"}, "stdout", b"<30>1 2023-11-14T22:13:20Z here tag 7 tag - hi"),
        ({"syslog-format": "rfc5424micro"}, "stdout", b"<30>1 2023-11-14T22:13:20.123456Z here tag 7 tag - hi"),
    ],
)
def test_messages_for_a_syslog(options: dict[str, str], stream: str, expected: bytes) -> None:
    settings = log_settings(LogDriver("syslog", options))
    assert syslog_message(Line(MOMENT, stream, b"hi"), settings, tag="tag", host="here", pid=7) == expected


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(max_size=30)), st.binary())
def test_whatever_is_said_arrives_in_the_journal_as_it_was(fields: dict[str, str], data: bytes) -> None:
    told = journal_fields(journal_message(Line(MOMENT, "stderr", data), fields))
    assert told["MESSAGE"] == data
    assert told["PRIORITY"] == b"3"
    assert {name: told[name].decode() for name in fields.keys() - told.keys()} == {}


def test_a_field_of_the_journal_has_a_name_that_it_allows() -> None:
    assert field_name("com.example.tier") == "COM_EXAMPLE_TIER"
    assert field_name("_0secret") == "SECRET"


class HeldSink:
    """A sink that takes nothing before it is let, and then everything."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.taken: list[bytes] = []
        self.failures = 0
        self.closed = asyncio.Event()

    async def open(self) -> None:
        self.closed.clear()

    async def send(self, lines: Sequence[Line]) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError("gone")
        await self.may.wait()
        self.taken += [line.data for line in lines]

    def close(self) -> None:
        self.closed.set()


def put(relay: Relay, pipe: tuple[int, int], data: bytes) -> None:
    os.write(pipe[1], data)
    relay.take(pipe[0], "stdout", 0.0)


async def test_a_blocking_relay_takes_no_more_than_it_can_hold_and_loses_nothing() -> None:
    sink, pipe, resumed = HeldSink(), os.pipe(), asyncio.Event()
    sent = []
    async with asyncio.TaskGroup() as tasks:
        relay = Relay("c", sink, is_blocking=True, buffer_bytes=1, tasks=tasks)
        await relay.open()
        relay.begin()
        while relay.wants_more(resumed.set):
            sent.append(b"%08d" % len(sent))
            put(relay, pipe, sent[-1] + b"\n")
        assert len(sent) < 10_000
        assert not resumed.is_set()
        sink.may.set()
        async with asyncio.timeout(10):
            await resumed.wait()
        relay.close()
    assert sink.taken == sent
    assert sink.closed.is_set()
    for end in pipe:
        os.close(end)


async def test_a_relay_that_does_not_wait_drops_what_does_not_fit() -> None:
    sink, pipe = HeldSink(), os.pipe()
    async with asyncio.TaskGroup() as tasks:
        relay = Relay("c", sink, is_blocking=False, buffer_bytes=1000, tasks=tasks)
        await relay.open()
        relay.begin()
        for number in range(500):
            assert relay.wants_more(lambda: None)
            put(relay, pipe, b"%08d\n" % number)
        sink.may.set()
        relay.close()
    assert sink.taken == [b"%08d" % number for number in range(len(sink.taken))]
    assert 1 <= len(sink.taken) < 20
    for end in pipe:
        os.close(end)


async def test_lines_after_the_other_side_is_back_arrive_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_relay, "REOPEN_SECONDS", 0.0)
    sink, pipe = HeldSink(), os.pipe()
    sink.failures = 1
    sink.may.set()
    async with asyncio.TaskGroup() as tasks:
        relay = Relay("c", sink, is_blocking=True, buffer_bytes=1, tasks=tasks)
        await relay.open()
        relay.begin()
        put(relay, pipe, b"lost\n")
        await sink.closed.wait()
        put(relay, pipe, b"heard\n")
        relay.close()
    assert sink.taken == [b"heard"]
    for end in pipe:
        os.close(end)


async def test_a_relay_whose_other_side_stands_still_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_relay, "FLUSH_SECONDS", 0.05)
    sink, pipe = HeldSink(), os.pipe()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        relay = Relay("c", sink, is_blocking=True, buffer_bytes=1, tasks=tasks)
        await relay.open()
        relay.begin()
        put(relay, pipe, b"never heard\n")
        await asyncio.sleep(0)  # it is being sent when the end comes
        relay.close()
    assert (sink.taken, sink.closed.is_set()) == ([], True)
    for end in pipe:
        os.close(end)


async def test_a_syslog_on_tcp_gets_lines() -> None:
    received = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result([await reader.readline() for _ in range(2)])
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        options = {"syslog-address": f"tcp://127.0.0.1:{port}", "syslog-format": "rfc5424"}
        sink = SyslogSink(log_settings(LogDriver("syslog", options)), "tag")
        await sink.open()
        await sink.send([Line(MOMENT, "stdout", b"one"), Line(MOMENT, "stderr", b"two")])
        async with asyncio.timeout(10):
            first, second = await received
        sink.close()
    assert (first[:5], first[-5:]) == (b"<30>1", b" one\n")
    assert (second[:5], second[-5:]) == (b"<27>1", b" two\n")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["datagrams", "stream"])
async def test_a_syslog_at_a_path_is_spoken_to_as_it_listens(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as own:
        own.bind(str(path))
        if kind == socket.SOCK_STREAM:
            own.listen()
        sink = SyslogSink(log_settings(LogDriver("syslog", {"syslog-address": f"unix://{path}"})), "tag")
        await sink.open()
        await sink.send([Line(MOMENT, "stdout", b"one")])
        loop = asyncio.get_running_loop()
        peer = (await loop.sock_accept(own))[0] if kind == socket.SOCK_STREAM else own
        async with asyncio.timeout(10):
            data = await loop.sock_recv(peer, 1000)
        sink.close()
        peer.close()
    assert data.startswith(b"<30>Nov 14 22:13:20 tag[")
    assert data.rstrip(b"\n").endswith(b"]: one")


async def test_a_journal_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot reach the journal at"):
        await JournalSink({}, str(tmp_path / "none")).open()


# With a runtime


def driver(name: str, **options: str) -> types.LogDriver:
    return types.LogDriver(name=name, options={key.replace("_", "-"): value for key, value in options.items()})


@pytest.mark.kernel
async def test_a_containers_lines_reach_a_syslog_to_the_last(host: RuntimeHost) -> None:
    path = host.root / "syslog.sock"
    async with datagrams_at(path) as receiver:
        wanted = driver("syslog", syslog_address=f"unixgram://{path}", tag="{{.ImageName}}/{{.ID}}")
        await host.start("says", "sh", "-c", "echo one; echo two >&2; printf unfinished", log_driver=wanted)
        await host.wait("says")
        told = [(await receiver.next()).decode() for _ in range(3)]
    assert sorted((line[:4], line.partition("]: ")[2]) for line in told) == [
        ("<27>", "two"),
        ("<30>", "one"),
        ("<30>", "unfinished"),
    ]
    assert all(" rootfs/says[" in line for line in told)
    with pytest.raises(FailedPrecondition, match="configured logging driver does not support reading: syslog"):
        await host.records("says")


@pytest.mark.kernel
async def test_a_new_daemon_goes_on_telling_the_syslog(host: RuntimeHost) -> None:
    path = host.root / "syslog.sock"
    async with datagrams_at(path) as receiver:
        wanted = driver("syslog", syslog_address=f"unix://{path}")
        script = "trap 'echo after; exit' USR1; echo before; while :; do sleep 1000 & wait; done"
        await host.start("says", "sh", "-c", script, log_driver=wanted)
        assert (await receiver.next()).endswith(b"]: before")
        await host.kill_daemon()
        await host.start_daemon()
        await host.kill("says", "USR1")
        assert (await receiver.next()).endswith(b"]: after")


@pytest.mark.kernel
async def test_a_container_does_not_start_without_its_syslog(host: RuntimeHost) -> None:
    wanted = driver("syslog", syslog_address=f"unix://{host.root}/nobody")
    await host.create("mute", "true", log_driver=wanted)
    with pytest.raises(FailedPrecondition, match="failed to initialize logging driver: cannot reach the syslog at"):
        await host.start("mute", "true", log_driver=wanted)


@pytest.mark.kernel
async def test_an_unknown_driver_is_refused_before_anything_is_made(host: RuntimeHost) -> None:
    for wanted, message in (
        (driver("gelf"), "no log driver named 'gelf' is registered"),
        (driver("local", max_sise="1"), "unknown log opt 'max-sise' for local log driver"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            await host.create("none", "true", log_driver=wanted)
    assert list((host.paths.runtime / "containers").iterdir()) == []


@pytest.mark.kernel
async def test_nothing_is_kept_with_the_driver_none(host: RuntimeHost) -> None:
    await host.start("mute", "sh", "-c", "head -c 5000000 /dev/zero", log_driver=driver("none"))
    assert (await host.wait("mute")).exit_code == 0
    assert not (host.paths.runtime / "containers/mute/log").exists()
    with pytest.raises(FailedPrecondition, match="does not support reading: none"):
        await host.records("mute")


@pytest.mark.kernel
async def test_a_log_is_rotated_as_it_was_asked_for(host: RuntimeHost) -> None:
    wanted = driver("json-file", max_size="20k", max_file="2")
    await host.start("flood", "sh", "-c", "seq 100000", log_driver=wanted)
    await host.wait("flood")
    folder = host.paths.runtime / "containers/flood/log"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2 * 20 * 1024 + 200
    lines = await host.lines("flood")
    assert lines == [str(number) for number in range(100001 - len(lines), 100001)]


@pytest.mark.kernel
async def test_a_container_that_does_not_wait_for_its_syslog_ends_though_nobody_reads(host: RuntimeHost) -> None:
    path = host.root / "syslog.sock"
    async with datagrams_at(path):
        wanted = driver("syslog", syslog_address=f"unix://{path}", mode="non-blocking", max_buffer_size="64k")
        await host.start("hasty", "sh", "-c", "seq 200000", log_driver=wanted)
        assert (await host.wait("hasty")).exit_code == 0


@pytest.mark.kernel
async def test_a_containers_lines_reach_the_journal_with_its_labels(layer: Path, tmp_path: Path) -> None:
    own_run = (
        f"mount -t tmpfs run /run && mkdir -p /run/systemd/journal && mount --bind {tmp_path} /run/systemd/journal"
    )
    prefix = ("unshare", "--mount", "sh", "-c", f'{own_run} && exec "$@"', "sh")
    async with datagrams_at(tmp_path / "socket") as journal, runtime_host(layer, prefix=prefix) as host:
        await host.start(
            "says", "echo", "hello", labels={"tier": "web", "pyswarm.task.name": "web.1.says"}, env=["STAGE=test"],
            log_driver=driver("journald", labels="tier", env="STAGE"),
        )  # fmt: skip
        fields = journal_fields(await journal.next())
    assert {name: value.decode() for name, value in fields.items() if name != "SYSLOG_TIMESTAMP_USEC"} == {
        "MESSAGE": "hello", "PRIORITY": "6", "CONTAINER_ID": "says", "CONTAINER_ID_FULL": "says",
        "CONTAINER_NAME": "web.1.says", "CONTAINER_TAG": "says", "SYSLOG_IDENTIFIER": "says", "IMAGE_NAME": "rootfs",
        "TIER": "web", "STAGE": "test",
    }  # fmt: skip
