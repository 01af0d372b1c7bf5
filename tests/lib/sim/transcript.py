"""Play a transcript: what is done to a simulated group, line by line, and what it answers.

    # why this is told
    members a b c               first line: who is there from the beginning
    > stand a                   a's patience is over: it asks to be elected
    a leads in term 1           what the group answers
    > show
    ...

A transcript is a test and its documentation in one: the runner writes down what happens in the same form, and the
two must be equal. Commands are the methods of `Stage` below.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from lib.linearizability import Write
from lib.sim.host import SimEngine, SimHost, process_of
from lib.sim.registers import Registers, payload_of
from lib.sim.simulation import Simulation, play

from pyswarm.manager.raft.progress import Progress
from pyswarm.proto.errors import SwarmError

PATIENCE_SECONDS = 0.6
"""How long the group has to answer a command; elections on calm links take a tenth of it."""


@dataclass
class Scene:
    command: str
    answer: list[str] = field(default_factory=list)


@dataclass
class Transcript:
    preface: list[str]
    members: list[str]
    scenes: list[Scene]

    def __str__(self) -> str:
        lines = [*self.preface, f"members {' '.join(self.members)}"]
        for scene in self.scenes:
            lines += ["", f"> {scene.command}", *scene.answer]
        return "\n".join(lines) + "\n"


def parse(text: str) -> Transcript:
    """Read a transcript; comments are allowed in its preface only."""
    transcript = Transcript([], [], [])
    for line in filter(None, text.splitlines()):
        if line.startswith("#"):
            assert not transcript.members, f"a comment between scenes: {line}"
            transcript.preface.append(line)
        elif line.startswith("members "):
            transcript.members = line.split()[1:]
        elif line.startswith("> "):
            transcript.scenes.append(Scene(line[2:]))
        else:
            transcript.scenes[-1].answer.append(line)
    return transcript


def played(transcript: Transcript) -> Transcript:
    """Return the transcript with the answers of a group of today."""
    result = Transcript(transcript.preface, transcript.members, [])

    async def course(group: Simulation) -> None:
        stage = Stage(group)
        await stage.curtain()
        for scene in transcript.scenes:
            verb, *words = scene.command.split()
            perform: Callable[..., Awaitable[list[str]]] = getattr(stage, f"do_{verb}")
            result.scenes.append(Scene(scene.command, await perform(*words)))

    play(course, members=len(transcript.members), snapshot_entries=20, segment_bytes=4096)
    return result


class Stage:
    """What can be done to a group. Every command returns what is to be written down."""

    def __init__(self, group: Simulation) -> None:
        self._group = group
        self._hosts = {host.name: host for host in group.hosts}
        self._number = 0

    async def curtain(self) -> None:
        self._group.found()
        await asyncio.sleep(0.2)
        for host in self._group.hosts:
            _be_patient(host)

    # -- what is done

    async def do_stand(self, name: str) -> list[str]:
        """`name` has waited long enough for a leader; the others have not."""
        before = {host.name: self._role(host) for host in self._group.hosts}
        elections = self._engine(name)._guard._electing._elections
        elections._deadline = self._hosts[name].monotonic()
        await asyncio.sleep(PATIENCE_SECONDS)
        told = [self._role(host) for host in self._group.hosts if self._role(host) != before[host.name]]
        return told or ["nothing changes"]

    async def do_write(self, name: str, value: str) -> list[str]:
        self._number += 1
        payload = payload_of(self._number, "x", Write(value))
        engine = self._engine(name)
        return [await _answer(self._hosts[name], lambda: engine.propose(payload, timeout_seconds=0.5), "written at {}")]

    async def do_fill(self, name: str, count: str) -> list[str]:
        """`count` writes, one after the other."""
        answers = [await self.do_write(name, f"fill-{n}") for n in range(int(count))]
        return answers[-1]

    async def do_flood(self, name: str, count: str, kibibytes: str) -> list[str]:
        """`count` large writes, one after the other."""
        answers = [await self.do_write(name, "x" * (1024 * int(kibibytes))) for _ in range(int(count))]
        return answers[-1]

    async def do_read(self, name: str) -> list[str]:
        host = self._hosts[name]
        machine = process_of(host).machine.machine
        assert isinstance(machine, Registers)
        answer = await _answer(host, lambda: self._engine(name).read_barrier(timeout_seconds=0.5), "")
        return [answer or f"x is {machine.value('x')}"]

    async def do_remove(self, name: str, gone: str) -> list[str]:
        member = self._hosts[gone].member
        engine = self._engine(name)
        return [await _answer(self._hosts[name], lambda: engine.remove_member(member.raft_id), f"{gone} removed")]

    async def do_add(self, name: str, newcomer: str) -> list[str]:
        member = self._hosts[newcomer].member
        engine = self._engine(name)
        return [await _answer(self._hosts[name], lambda: engine.add_member(member), f"{newcomer} added")]

    async def do_hand(self, _over: str, name: str) -> list[str]:
        answer = await _answer(self._hosts[name], self._engine(name).transfer_leadership, "handed over")
        await asyncio.sleep(PATIENCE_SECONDS)
        return [answer, *(self._role(host) for host in self._group.hosts if "leads" in self._role(host))]

    async def do_isolate(self, name: str) -> list[str]:
        self._group.network.part([[name], [other for other in self._hosts if other != name]])
        return []

    async def do_mute(self, source: str, target: str) -> list[str]:
        """Nothing that `source` says reaches `target`."""
        self._group.network.cut.add((source, target))
        return []

    async def do_heal(self) -> list[str]:
        self._group.network.heal()
        return []

    async def do_kill(self, name: str) -> list[str]:
        self._hosts[name].crash(power=False)
        return []

    async def do_start(self, name: str) -> list[str]:
        await self._hosts[name].start()
        _be_patient(self._hosts[name])
        return []

    async def do_renew(self, name: str) -> list[str]:
        """`name` forgets everything it was and begins as a new machine, which nobody knows yet."""
        self._hosts[name].crash(power=False)
        self._hosts[name].reborn()
        return await self.do_start(name)

    async def do_wait(self, seconds: str) -> list[str]:
        await asyncio.sleep(float(seconds))
        return []

    async def do_show(self) -> list[str]:
        return [self._state(host) for host in self._group.hosts]

    async def do_followers(self, name: str) -> list[str]:
        """What `name`, which leads, knows of the others."""
        progress = self._engine(name)._guard._exchange.progress
        members = {host.member.raft_id: host.name for host in self._group.hosts}
        return [_progress(members[raft_id], progress[raft_id]) for raft_id in sorted(progress, key=members.__getitem__)]

    # -- what is seen

    def _engine(self, name: str) -> SimEngine:
        return process_of(self._hosts[name]).engine

    def _role(self, host: SimHost) -> str:
        if host.engine is None:
            return f"{host.name} is down"
        report = host.engine.report()
        verb = {"leader": "leads", "joining": "waits to be admitted"}.get(report.role.name.lower(), "follows")
        return f"{host.name} {verb} in term {report.term}"

    def _state(self, host: SimHost) -> str:
        if host.engine is None:
            return self._role(host)
        report = host.engine.report()
        entries: Any = host.engine._journal._entries
        log = f"log {entries[0][1]}-{report.last_index} ends in term {entries[-1][2]}"
        return f"{self._role(host)}, {log}, committed {report.commit_index}"


def _progress(name: str, progress: Progress) -> str:
    sent = "everything" if progress.sent_to == progress.match else "more"
    window = "its window is full" if progress.is_window_full else "there is room in its window"
    return f"{name} holds up to {progress.match}, {sent} that was sent; {window}"


def _be_patient(host: SimHost) -> None:
    """Let `host` stand for election only when a transcript says so."""
    elections = process_of(host).engine._guard._electing._elections

    def put_off(_: float) -> None:
        elections._deadline = inf

    elections.put_off = elections.hasten = put_off  # type: ignore[method-assign]
    elections._deadline = inf


async def _answer(host: SimHost, work: Callable[[], Awaitable[Any]], told: str) -> str:
    async def ask() -> str:
        try:
            result = await work()
        except SwarmError as refusal:
            return f"{type(refusal).__name__}: {refusal.message}"
        return told.format(result[0]) if isinstance(result, tuple) else told

    task = host.serve(ask())
    await asyncio.wait({task})
    answer: str = task.result()
    return answer
