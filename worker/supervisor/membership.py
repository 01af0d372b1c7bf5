"""How this machine becomes part of a cluster, changes its role there, and leaves: all or nothing each time."""

import asyncio
import json
import secrets
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pyswarm.proto import errors
from pyswarm.proto.errors import FailedPrecondition, InvalidArgument, Locked, SwarmError, Unavailable
from pyswarm.proto.log import get_logger
from pyswarm.proto.paths import API_PORT, NodePaths
from pyswarm.worker.supervisor import node_file
from pyswarm.worker.supervisor.daemons import Daemon

log = get_logger(__name__)

Say = Callable[[str], Awaitable[None]]

READY_SECONDS = 60.0
SETTLE_SECONDS = 10.0
"""How long a manager that was just started may take to find out whether it is locked."""

FAREWELL_SECONDS = 45.0
"""How long leaving may take: saying goodbye and stopping every container within its grace period."""

NOT_PART = 'This node is not part of a cluster. Use "pyswarm init" or "pyswarm join" to make it one.'

LOCKED = "This node's manager is locked."
WRONG_KEY_REMEDY = (
    "Give the key that `pyswarm unlock-key` showed when this manager last ran: "
    "one that was off while the key was rotated still has the key from before."
)

_ERRORS = {cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, SwarmError)}


class Membership:
    """What pyswarmd does for `init`, `join`, `leave`, and what its daemons tell it."""

    def __init__(self, paths: NodePaths) -> None:
        self._paths = paths
        self.runtime = Daemon("pyswarm-runtime", paths)
        self.worker = Daemon("pyswarm-worker", paths)
        self.manager = Daemon("pyswarm-manager", paths)
        self._joined = asyncio.Event()
        self._has_session = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        return (self.runtime, self.worker, self.manager)

    def record(self) -> node_file.Record | None:
        return node_file.read(self._paths.node_file)

    def resume(self) -> None:
        """Start what this node should run: after a boot, or after pyswarmd itself was restarted."""
        self._recover_certificates()
        record = self.record()
        # Images can be pulled and listed on a machine that belongs to no cluster yet.
        self.runtime.start()
        if record is not None:
            self._start_daemons(record)

    async def stop(self) -> None:
        """End the daemons; containers go on under what holds them."""
        await asyncio.gather(*(daemon.stop() for daemon in self.daemons))

    # -- operations people ask for

    async def status(self) -> dict[str, Any]:
        record = self.record() or {}
        daemons = [
            {
                "name": d.name,
                "pid": d.process.pid if d.process is not None else 0,
                "running": d.process is not None,
                "restarts": d.restarts,
            }
            for d in self.daemons
            if d.is_kept
        ]
        kept = {key: record.get(key, "") for key in ("node_id", "cluster_id", "role", "advertise_addr")}
        locked = self.manager.locked.is_set()
        return {**kept, "managers": record.get("managers", []), "daemons": daemons, "locked": locked}

    async def init(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        async with self._one_at_a_time:
            self._must_be_free()
            await say("making the cluster's root certificate")
            try:
                made = await self._one_shot("pyswarm.manager.bootstrap", request)
                self._hand_key(made)
                record = self._new_record(request, made, "manager", {"mode": "init"})
                record["managers"] = [{"node_id": made["node_id"], "addr": f"{record['advertise_addr']}:{API_PORT}"}]
                await self._begin(record, say)
            except BaseException:
                await self._forget()
                raise
            return {"node_id": made["node_id"], "cluster_id": made["cluster_id"]}

    async def restore(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        """Make this machine the first manager of the cluster in a backup."""
        async with self._one_at_a_time:
            self._must_be_free()
            await say("reading the backup")
            try:
                made = await self._one_shot("pyswarm.manager.restore", {**request, "raft_id": secrets.token_hex(8)})
                self._hand_key(made)
                record = self._new_record(request, made, "manager", None)
                record["raft_id"] = made["raft_id"]
                record["managers"] = [{"node_id": made["node_id"], "addr": f"{record['advertise_addr']}:{API_PORT}"}]
                await self._begin(record, say)
            except BaseException:
                await self._forget()
                raise
            told = {key: made[key] for key in ("node_id", "cluster_id", "services", "nodes", "removed")}
            return {**told, "autolock": bool(made.get("unlock_key"))}

    async def force_new_cluster(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        """Make this manager the only one of its cluster, from what it has on its disk. Containers run on."""
        async with self._one_at_a_time:
            record = self.record()
            if record is None:
                raise FailedPrecondition(NOT_PART)
            if record.get("role") != "manager":
                raise FailedPrecondition("This node is not a manager.", remedy="Run it on a manager that is left.")
            self._must_not_be_locked()
            await say("stopping this manager")
            await self.manager.stop()
            await say("making this manager the only one")
            try:
                options = {"raft_id": secrets.token_hex(8), "unlock_keys": self.manager.unlock_keys}
                made = await self._one_shot("pyswarm.manager.recover", {**request, **options})
            except BaseException:
                self.manager.start()
                raise
            address = made["advertise_addr"]
            record["raft_id"], record["advertise_addr"] = made["raft_id"], address
            record["managers"] = [{"node_id": made["node_id"], "addr": f"{address}:{API_PORT}"}]
            record.pop("bootstrap", None)
            # The worker knows the managers that are gone: it begins anew with this one.
            await self.worker.stop()
            await self._begin(record, say)
            return {"node_id": made["node_id"], "removed": made["removed"]}

    async def readdress(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        """Have this node be found under another address. Containers run on.

        The address is kept also when the cluster cannot be reached from it: the machine is where it is.
        """
        async with self._one_at_a_time:
            record = self.record()
            if record is None:
                raise FailedPrecondition(NOT_PART)
            address = request.get("advertise_addr")
            if not address:
                raise InvalidArgument("no address is given")
            if address == record.get("advertise_addr"):
                return {"node_id": record["node_id"]}
            self._must_not_be_locked()
            own = {"node_id": record["node_id"], "addr": f"{address}:{API_PORT}"}
            record["advertise_addr"] = address
            record["managers"] = [own if m["node_id"] == own["node_id"] else m for m in record.get("managers", [])]
            await say(f"restarting this node's daemons at {address}")
            await asyncio.gather(self.worker.stop(), self.manager.stop())
            await self._begin(
                record,
                say,
                remedy="The new address is kept. See that the managers can reach this machine, and it them.",
            )
            return {"node_id": record["node_id"]}

    async def join(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        async with self._one_at_a_time:
            self._must_be_free()
            fresh = self._paths.certificates.with_name("certificates.new")
            await say(f"asking {request.get('remote')} for a certificate")
            try:
                made = await self._one_shot(
                    "pyswarm.worker.agent.enroll", {**request, "addr": request.get("advertise_addr", "")}
                )
                fresh.rename(self._paths.certificates)
                bootstrap = {"mode": "join", "remote": request.get("remote")} if made["role"] == "manager" else None
                record = self._new_record(request, made, made["role"], bootstrap)
                record["managers"] = made["managers"]
                await self._begin(record, say)
            except BaseException:
                await self._forget()
                raise
            return {"node_id": made["node_id"], "role": made["role"]}

    async def unlock(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        """Start the locked manager with an unlock key, which is kept for its next starts if it is the right one."""
        async with self._one_at_a_time:
            if self.record() is None:
                raise FailedPrecondition(NOT_PART)
            await self._until_known_to_be_locked()
            key = request.get("key")
            if not isinstance(key, str):
                raise InvalidArgument("no unlock key is given")
            self._joined.clear()
            self.manager.unlock_keys = (key,)
            self.manager.start()
            await say("waiting for the manager")
            await self._until_ready(self.manager, self._joined, what="the manager")
            return {}

    async def leave(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        async with self._one_at_a_time:
            record = self.record()
            if record is None:
                raise FailedPrecondition(NOT_PART)
            if record.get("role") == "manager" and not request.get("force"):
                raise FailedPrecondition(
                    "You are attempting to leave the cluster on a node that is participating as a manager.",
                    remedy="Demote it first (`pyswarm node demote`), or use --force and accept that the others may "
                    "lose their quorum.",
                )
            await say("stopping this node's containers")
            # SIGUSR1 asks the worker to say goodbye, stop its containers and clean its network before it ends.
            if self.worker.process is not None:
                await self.worker.stop(signal.SIGUSR1, seconds=FAREWELL_SECONDS)
            await self._forget()
            return {"node_id": record.get("node_id", "")}

    # -- what the daemons tell

    async def joined(self) -> dict[str, Any]:
        """The manager is a member of the consensus group and serves."""
        record = self.record()
        if record is not None and "bootstrap" in record:
            del record["bootstrap"]
            node_file.write(self._paths.node_file, record)
        self._joined.set()
        return {}

    async def keep_unlock_keys(self, request: dict[str, Any]) -> dict[str, Any]:
        """What opens the manager's state now has changed."""
        self.manager.unlock_keys = tuple(str(key) for key in request.get("keys", ()))
        return {}

    async def session(self) -> dict[str, Any]:
        """The worker has a session with the managers."""
        self._has_session.set()
        return {}

    async def managers(self, request: dict[str, Any]) -> dict[str, Any]:
        record = self.record()
        if record is not None and request.get("managers") and record.get("managers") != request["managers"]:
            record["managers"] = request["managers"]
            node_file.write(self._paths.node_file, record)
        return {}

    async def role(self, request: dict[str, Any]) -> dict[str, Any]:
        """The worker has a certificate for another role: run the manager, or stop it and forget its state."""
        wanted = request.get("role")
        if wanted not in ("manager", "worker"):
            raise InvalidArgument(f"no such role: {wanted}")
        record = self.record()
        if record is None:
            raise FailedPrecondition(NOT_PART)
        if record.get("role") == wanted:
            return {}
        log.info("role changes", role=wanted)
        record["role"] = wanted
        if wanted == "manager":
            # A fresh raft id each time: one that was used before must never vote again.
            record["raft_id"] = secrets.token_hex(8)
            others = [m["addr"] for m in record.get("managers", []) if m.get("node_id") != record["node_id"]]
            record["bootstrap"] = {"mode": "join", "remote": others[0] if others else ""}
            node_file.write(self._paths.node_file, record)
            self.manager.start()
        else:
            record.pop("bootstrap", None)
            node_file.write(self._paths.node_file, record)
            await self.manager.stop()
            self.manager.unlock_keys = ()
            shutil.rmtree(self._paths.manager, ignore_errors=True)
        return {}

    # -- parts

    def _must_be_free(self) -> None:
        if self.record() is not None:
            raise FailedPrecondition(
                "This node is already part of a cluster.",
                remedy='Use "pyswarm leave" to leave this cluster and join another one.',
            )

    async def _until_known_to_be_locked(self) -> None:
        """Return once the manager has said that it is locked: after a boot, whoever unlocks may be quicker than it.

        Raises FailedPrecondition when it is a member, or says nothing: one that was adopted does not report again.
        """
        if self.manager.is_kept and not self._joined.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    await _first_of(self._joined, self.manager.locked)
        if not self.manager.locked.is_set():
            raise FailedPrecondition("swarm is not locked", remedy="Nothing needs to be done.")

    def _must_not_be_locked(self) -> None:
        if self.manager.locked.is_set():
            raise Locked(LOCKED)

    def _hand_key(self, made: dict[str, Any]) -> None:
        """Have the manager of a cluster just made start with the unlock key that was made with it, if one was."""
        key = made.get("unlock_key")
        self.manager.unlock_keys = (key,) if key else ()

    @staticmethod
    def _new_record(
        request: dict[str, Any], made: dict[str, Any], role: str, bootstrap: dict[str, Any] | None
    ) -> node_file.Record:
        record = {
            "node_id": made["node_id"],
            "cluster_id": made["cluster_id"],
            "role": role,
            "advertise_addr": request.get("advertise_addr", ""),
            "listen_addr": request.get("listen_addr") or "0.0.0.0",
            "raft_id": secrets.token_hex(8),
        }
        return {**record, "bootstrap": bootstrap} if bootstrap is not None else record

    async def _begin(
        self, record: node_file.Record, say: Say, *, remedy: str = "Nothing of this attempt was kept."
    ) -> None:
        """Start this node's daemons and wait until they are part of the cluster; `remedy` is for when they are not."""
        node_file.write(self._paths.node_file, record)
        self._joined.clear()
        self._has_session.clear()
        self._start_daemons(record)
        waits = [("the agent's first session", self._has_session, self.worker)]
        if record["role"] == "manager":
            waits.insert(0, ("the manager", self._joined, self.manager))
        for what, event, daemon in waits:
            await say(f"waiting for {what}")
            await self._until_ready(daemon, event, what=what, remedy=remedy)

    async def _until_ready(self, daemon: Daemon, event: asyncio.Event, *, what: str, remedy: str = "") -> None:
        """Wait for `event`. Raises Locked when the daemon turns out to be locked, Unavailable after READY_SECONDS."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await _first_of(event, daemon.locked)
        except TimeoutError as error:
            raise Unavailable(
                f"{what} did not come up within {READY_SECONDS:g} s; {daemon.name} says:\n{daemon.log_tail()}",
                remedy=f"See {daemon.log_file}. {remedy}".rstrip(),
            ) from error
        if daemon.locked.is_set():
            tried, daemon.unlock_keys = daemon.unlock_keys, ()
            if not tried:
                raise Locked(LOCKED)
            raise Locked("the unlock key does not open this manager's state", remedy=WRONG_KEY_REMEDY)

    def _start_daemons(self, record: node_file.Record) -> None:
        self.runtime.start()
        self.worker.start()
        if record.get("role") == "manager":
            self.manager.start()

    async def _forget(self) -> None:
        """Belong to no cluster (any more): end the daemons of the cluster and remove this node's state. Images stay."""
        await asyncio.gather(self.worker.stop(), self.manager.stop())
        self.manager.unlock_keys = ()
        paths = self._paths
        # The record goes first: a crash from here on leaves a machine that belongs to no cluster.
        paths.node_file.unlink(missing_ok=True)
        names = ("certificates", "certificates.new", "certificates.old")
        for folder in (*(paths.certificates.with_name(n) for n in names), paths.manager, paths.worker):
            shutil.rmtree(folder, ignore_errors=True)

    def _recover_certificates(self) -> None:
        """Undo an exchange of certificates that a crash cut in two (proto/certificate_files.py)."""
        old = self._paths.certificates.with_name("certificates.old")
        if old.exists() and not self._paths.certificates.exists():
            old.rename(self._paths.certificates)

    async def _one_shot(self, module: str, options: dict[str, Any]) -> dict[str, Any]:
        """Run a one-shot with JSON in and out; raise the error it answers with."""
        self._paths.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, "--root", str(self._paths.root)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
        )
        output, errors_text = await process.communicate(json.dumps(options).encode())
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError as error:
            text = errors_text.decode(errors="replace").strip().splitlines()
            raise errors.Internal(f"{module} failed: {text[-1] if text else 'no output'}") from error
        if not answer.get("ok"):
            cls = _ERRORS.get(answer.get("code", ""), errors.Internal)
            raise cls(answer.get("message", "failed"), remedy=answer.get("remedy"))
        return answer


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
