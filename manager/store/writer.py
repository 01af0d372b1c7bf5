"""Have changes committed: exactly once, with nothing locked while they are under way.

Any number of writes may be in flight at once. Whether they fit is checked where they are applied, object by
object, so writes that touch different objects pass each other freely and one that comes too late is told
which object moved. A write whose outcome consensus cannot tell is proposed again under the same number,
which the state recognises (apply.py); only the leader's proposals are tried, forwarding is the RPC's matter.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from msgspec.structs import replace

from pyswarm.manager.raft.port import Consensus
from pyswarm.manager.store.apply import Applied, Entry, Forgotten, Outcome, Refused, decode_outcome, encode_entry
from pyswarm.manager.store.batch import ENTRY_BYTES_MAX, BatchOutcome, EntryTooLarge, Overtaken, parts
from pyswarm.manager.store.changes import Change, Create, Plan, Update
from pyswarm.manager.store.conflict import Conflict, InvalidChanges
from pyswarm.manager.store.departures import Departures
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.manager.store.store import Store
from pyswarm.proto.backoff import Backoff
from pyswarm.proto.clock import Clock
from pyswarm.proto.entropy import Entropy
from pyswarm.proto.errors import NotLeader, OutcomeUnknown, SwarmError, Unavailable
from pyswarm.proto.log import get_logger

log = get_logger(__name__)

MAX_IN_FLIGHT: Final = 1024
"""Writes under way at once; further ones wait their turn, within their deadline."""

PARTS_IN_FLIGHT: Final = 4
"""Parts of one batch under way at once: enough to keep the disks busy, few enough to leave others their turn. Reads and
writes of others wait behind all of them: with 16, for seconds, while managers and agents are short of processors."""

RETRY: Final = Backoff(first_seconds=0.02, cap_seconds=0.5)
"""Between two proposals of one write whose outcome is unknown: leadership takes that long to settle."""

_UNKNOWN: Final = "the write may or may not have been committed"


class Writer:
    """The one writer of a manager process: make one and share it."""

    def __init__(self, consensus: Consensus, store: Store, *, clock: Clock, entropy: Entropy) -> None:
        self._consensus = consensus
        self._store = store
        self._clock = clock
        self._entropy = entropy
        # Random, so that no two processes are ever taken for one writer.
        self._client_id = entropy.new_id()
        self._sequence = 0
        # Ordered by number, because numbers only grow: the first is the lowest not settled.
        self._in_flight: dict[int, None] = {}
        self._turns = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._departures = Departures()

    async def write(self, changes: Sequence[Change], *, timeout_seconds: float = 10.0) -> int:
        """Commit `changes`, all or none, and return the version they made; the local view contains them then.

        Created objects get `created_at` unless they have one; created and updated ones get `updated_at`.

        Raises:
            Conflict: an object is not at the version a change names; nothing was written.
            EntryTooLarge: the changes do not fit one entry; nothing was written.
            NotLeader: this manager does not lead; nothing was written.
            Unavailable: no quorum in reach; nothing was written.
            OutcomeUnknown: leadership was lost or the time was up while the write was under way.
        """
        if not changes:
            return self._store.view.version
        now = self._clock.now()
        stamped = tuple(_stamped(change, now) for change in changes)
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        await self._take_turn(deadline)
        self._sequence += 1
        sequence = self._sequence
        self._in_flight[sequence] = None
        try:
            outcome = await self._commit(sequence, stamped, deadline)
        finally:
            del self._in_flight[sequence]
            self._turns.release()
        return _version_or_raise(outcome)

    async def _take_turn(self, deadline: float) -> None:
        if not self._turns.locked():
            # A timeout is as dear as all else that is done here: none where nothing is waited for.
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Unavailable(
                f"{MAX_IN_FLIGHT} writes were under way until the time was up",
                remedy="The managers are overloaded or have lost their quorum: try again later.",
            ) from error

    async def write_batch(self, changes: Sequence[Change], *, timeout_seconds: float = 10.0) -> BatchOutcome:
        """Commit `changes` in as many entries as they need, side by side; each part takes effect or not by itself.

        For changes that do not need each other. Parts that were overtaken are in the outcome, the others written.

        Raises:
            EntryTooLarge, NotLeader, Unavailable, OutcomeUnknown: as `write`, for some part, once it is clear what
                became of each: others may have been written.
        """
        turns = asyncio.Semaphore(PARTS_IN_FLIGHT)
        versions = [0]
        overtaken: list[Overtaken] = []
        failures: list[SwarmError] = []

        async def write(part: tuple[Change, ...]) -> None:
            try:
                versions.append(await self.write(part, timeout_seconds=timeout_seconds))
            except Conflict as conflict:
                overtaken.append(Overtaken(part, conflict))
            except SwarmError as failure:
                failures.append(failure)
            finally:
                turns.release()

        async with asyncio.TaskGroup() as group:
            for part in parts(changes):
                await turns.acquire()
                if failures:
                    break
                group.create_task(write(part))
        if failures:
            raise failures[0]
        return BatchOutcome(max(versions), tuple(overtaken))

    async def update(
        self, decide: Callable[[Snapshot], Plan], *, attempts: int = 5, timeout_seconds: float = 10.0
    ) -> tuple[int, Plan]:
        """Decide on the present view and commit the plan; on conflict decide again, on what the view is then.

        Returns the version and the plan that was committed; an empty plan writes nothing. `decide` may raise, and may
        be asked several times.

        A plan that writes is checked where it is applied. That there is nothing to write, or that it cannot be done,
        is checked by nobody: so it is decided on a view that a read barrier has brought up to date.

        Raises:
            Conflict: every one of `attempts` decisions was overtaken.
            NotLeader, Unavailable, OutcomeUnknown: as `write`.
        """
        overtaken: Conflict | None = None
        for _ in range(attempts):
            plan = await self._decided(decide)
            try:
                return await self.write(plan.changes, timeout_seconds=timeout_seconds), plan
            except Conflict as conflict:
                log.debug("decision overtaken", why=plan.why, kind=conflict.kind, id=conflict.id)
                overtaken = conflict
        assert overtaken is not None, "attempts is at least 1"
        raise overtaken

    async def _decided(self, decide: Callable[[Snapshot], Plan]) -> Plan:
        """Return a plan, decided on the view as it is if it writes, else on one that holds every write of before."""
        # What a view refuses that lags behind, the present one may allow: only the latter's refusal is told.
        with suppress(SwarmError):
            plan = decide(self._store.view)
            if plan.changes:
                return plan
        await self._consensus.read_barrier()
        return decide(self._store.view)

    async def _commit(self, sequence: int, changes: tuple[Change, ...], deadline: float) -> Outcome:
        """Propose until the outcome is known or the deadline has passed."""
        time = asyncio.get_running_loop().time
        may_be_committed = False
        for attempt in count():
            try:
                return await self._propose(sequence, changes, deadline)
            except OutcomeUnknown as unknown:
                may_be_committed = True
                failure: Unavailable | NotLeader = unknown
            except (NotLeader, Unavailable) as refused:
                # Only the first refusal proves that nothing was written: an earlier proposal may be.
                if not may_be_committed:
                    raise
                failure = refused
            await asyncio.sleep(
                min(RETRY.delay_seconds(attempt, self._entropy.uniform(0, 1)), max(0, deadline - time()))
            )
            if time() < deadline and await self._leads_again(deadline):
                continue
            outcome = self._store.outcome_of(self._client_id, sequence)
            if outcome is not None:
                return outcome
            raise OutcomeUnknown(_UNKNOWN) from failure
        raise AssertionError("unreachable: the loop ends by return or raise")

    async def _propose(self, sequence: int, changes: tuple[Change, ...], deadline: float) -> Outcome:
        """Propose once, together with other writes that wait."""
        try:
            await self._departures.enter(deadline)
        except TimeoutError as error:
            raise Unavailable(
                "writes before this one were under way until the time was up; it was not proposed",
                remedy="The managers are overloaded or have lost their quorum: try again later.",
            ) from error
        try:
            # Encoded afresh each time: writes before this one may have been settled meanwhile.
            payload = encode_entry(Entry(self._client_id, sequence, next(iter(self._in_flight)), changes))
            if len(payload) > ENTRY_BYTES_MAX:
                raise EntryTooLarge(changes=len(changes), size=len(payload))
            timeout_seconds = max(0.0, deadline - asyncio.get_running_loop().time())
            _, result = await self._consensus.propose(payload, timeout_seconds=timeout_seconds)
            return decode_outcome(result)
        finally:
            self._departures.leave()

    async def _leads_again(self, deadline: float) -> bool:
        """Wait until it is clear who leads; return whether this manager does, with time left to propose again."""
        changes = self._consensus.watch_leadership()
        try:
            async with asyncio.timeout_at(deadline):
                async for leadership in changes:
                    if leadership.is_leader and leadership.is_ready:
                        return True
                    if leadership.leader is not None and not leadership.is_leader:
                        return False
        except TimeoutError:
            return False
        finally:
            # A generator left halfway would be ended whenever the garbage collector comes by.
            if isinstance(changes, AsyncGenerator):
                await changes.aclose()
        return False


def _stamped(change: Change, now: float) -> Change:
    if isinstance(change, Create):
        created_at = change.object.created_at or now
        return Create(replace(change.object, created_at=created_at, updated_at=now))
    if isinstance(change, Update):
        return Update(replace(change.object, updated_at=now))
    return change


def _version_or_raise(outcome: Outcome) -> int:
    if isinstance(outcome, Applied):
        return outcome.version
    if isinstance(outcome, Refused):
        raise Conflict(outcome.kind, outcome.id, expected=outcome.expected, found=outcome.found, why=outcome.message)
    if isinstance(outcome, Forgotten):
        raise OutcomeUnknown(_UNKNOWN)
    raise InvalidChanges(outcome.message)
