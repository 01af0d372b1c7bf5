"""Decide what a service's set of tasks should gain, lose, restart or replace next.

Pure: reads one Snapshot, returns a Plan; the leader's loop commits it. One pass over the service's slots, in this
order: tasks that may not stay where they are, dead tasks, the number of slots, outdated tasks (update.py), and
replacements that may start now. Placing tasks belongs to the scheduler, deleting them to reaper.py.

A replacement is created with desired state READY, so that its image is there, and may run once its time has come
and what ran in its slot before has stopped. Stop-first updates and restarts are the same thing seen from here.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from pyswarm.manager.orchestrator.cron import reconcile_scheduled
from pyswarm.manager.orchestrator.jobs import reconcile_job
from pyswarm.manager.orchestrator.moves import desire
from pyswarm.manager.orchestrator.placement import is_drained, is_lost, reason_to_leave, satisfies
from pyswarm.manager.orchestrator.rebalance import can_be_rebalanced, looks_uneven, rebalance
from pyswarm.manager.orchestrator.relocate import decide_moves, reason_to_move
from pyswarm.manager.orchestrator.restart import Verdict, after_death, after_loss
from pyswarm.manager.orchestrator.room import in_the_way
from pyswarm.manager.orchestrator.slots import NewId, Slot, SlotKey, SlotTable
from pyswarm.manager.orchestrator.update import UpdateStep, decide_update, superseded, update_config
from pyswarm.manager.store.changes import Change, Create, Plan, Update
from pyswarm.manager.store.snapshot import Snapshot
from pyswarm.proto.model.objects import Node, Service, Task, TaskStatus
from pyswarm.proto.model.states import Availability, NodeState, TaskState, UpdateOrder

STOP_WAIT_SECONDS = 60.0
"""How long a replacement waits for its predecessor on a live node to stop (SwarmKit restart.go)."""


def reconcile(seen: Snapshot, service: Service, *, now: float, new_id: NewId) -> Plan:
    """Return the next changes of one service. Deciding again on the result settles after a few rounds."""
    if service.spec.schedule is not None:
        return reconcile_scheduled(seen, service, now=now, new_id=new_id)
    if service.spec.mode.is_job:
        return reconcile_job(seen, service, now=now, new_id=new_id)
    return _Pass(seen, service, now, new_id).plan()


class _Pass:
    """One decision. Holds the tasks as they will be after the changes decided so far."""

    def __init__(self, seen: Snapshot, service: Service, now: float, new_id: NewId) -> None:
        self.seen = seen
        self.service = service
        self.now = now
        self.new_id = new_id
        self.policy = service.spec.task_template.restart_policy
        self.stored = {task.id: task for task in seen.tasks_of_service(service.id)}
        self.tasks = dict(self.stored)
        self.table = SlotTable(service, self.stored.values())
        self.created: dict[str, Task] = {}
        # Whether a task must leave depends on its node and its spec: found out once for all that share them.
        self.leaving: dict[tuple[str, int], str] = {}
        self.service_after = service
        self.extra: list[Change] = []
        self.moments: list[float] = []
        self.reasons: list[str] = []

    def plan(self) -> Plan:
        self._leave_where_they_may_not_stay()
        self._bury_and_restart()
        if self.service.spec.mode.global_mode is not None:
            self._one_slot_per_node()
        else:
            self._as_many_slots_as_replicas()
            self._move()
        self._update()
        self._start_what_may_start()
        changed = [Update(task) for id, task in sorted(self._touched()) if task != self.stored[id]]
        changes: list[Change] = [*self.extra, *changed]
        changes += [Create(task) for task in sorted(self.created.values(), key=lambda t: (t.slot, t.node_id, t.id))]
        if self.service_after != self.service:
            changes.insert(0, Update(self.service_after))
        if not changes:
            changes += self._rebalance()
        later = [m for m in self.moments if m > self.now]
        return Plan(tuple(changes), min(later) if later else None, "; ".join(dict.fromkeys(self.reasons)))

    # -- the parts of a decision

    def _slots(self) -> Mapping[SlotKey, Slot]:
        return self.table.slots

    def _leave_where_they_may_not_stay(self) -> None:
        for slot in self._slots().values():
            # A move gives the slot another task first.
            reasons = {t.id: why for t in slot.live if (why := self._reason_to_leave(t)) and not self._is_moved(t)}
            if not reasons:
                continue
            for task in slot.live:
                if task.id in reasons:
                    self._desire(task, TaskState.SHUTDOWN, reasons[task.id])
            # In the middle of an update a slot has two tasks, and both may be lost at once.
            if len(reasons) == len(slot.live) and self.service.spec.mode.global_mode is None:
                why = reasons[slot.live[-1].id]
                self._replace(slot, after_loss(self.policy, now=self.now, why=why))

    def _reason_to_leave(self, task: Task) -> str:
        place = (task.node_id, task.spec_version)
        why = self.leaving.get(place)
        if why is None:
            revision = self.seen.revision_of(task)
            template = revision.task_template if revision is not None else self.service.spec.task_template
            why = reason_to_leave(task, self.seen.node(task.node_id), template.placement)
            if task.node_id:
                self.leaving[place] = why
        return why

    def _is_moved(self, task: Task) -> bool:
        is_replicated = self.service.spec.mode.replicated is not None
        return is_replicated and bool(reason_to_move(self.seen, task, now=self.now))

    def _bury_and_restart(self) -> None:
        for slot in self._slots().values():
            if len(slot.live) == len(slot.tasks):
                continue
            dead = [t for t in slot.tasks if t.is_wanted and t.state.is_terminal]
            for task in dead:
                self._desire(task, TaskState.SHUTDOWN, "it has ended")
            if not dead or slot.live or not self._may_hold(slot):
                continue
            last = dead[-1]
            if last.spec_version != self.service.spec_version:
                self._replace(slot, Verdict(self.now, f"task {last.id} ended and its spec is outdated"))
            elif last.state is TaskState.ORPHANED:
                self._replace(
                    slot, after_loss(self.policy, now=self.now, why=f"the node of task {last.id} was removed")
                )
            else:
                verdict = after_death(slot, last, self.policy, now=self.now)
                self._replace(slot, replace(verdict, why=f"{verdict.why} (index {last.version})"))

    def _may_hold(self, slot: Slot) -> bool:
        """Whether a global service's slot is still on a node that should run it."""
        return not isinstance(slot.key, str) or self._is_eligible(self.seen.node(slot.key))

    def _as_many_slots_as_replicas(self) -> None:
        mode = self.service.spec.mode.replicated
        wanted = mode.replicas if mode is not None else 0
        slots = self._slots()
        if len(slots) > wanted:
            why = f"scaled down to {wanted} replicas (index {self.service.version})"
            for slot in self._victims(slots, len(slots) - wanted):
                for task in slot.tasks:
                    self._desire(task, TaskState.REMOVE, why)
            self.reasons.append(why)
        elif len(slots) < wanted:
            numbers = (n for n in range(1, wanted + 1) if n not in slots)
            for _, number in zip(range(wanted - len(slots)), numbers, strict=False):
                self._create(number, "", self.now, f"{wanted} replicas are wanted (index {self.service.version})")
            self.reasons.append(f"{len(slots)} of {wanted} slots filled")

    @staticmethod
    def _victims(slots: Mapping[SlotKey, Slot], count: int) -> list[Slot]:
        """Slots to give up: those that do not run, then those on the fullest nodes, then the highest numbers."""
        remaining = dict(slots)
        victims = []
        for _ in range(count):
            per_node = Counter(t.node_id for slot in remaining.values() for t in slot.live)

            def worth(slot: Slot, load: Counter[str] = per_node) -> tuple[bool, int, int]:
                crowd = max((load[t.node_id] for t in slot.live), default=0)
                return (slot.is_running, -crowd, -int(slot.key))

            victim = min(remaining.values(), key=worth)
            del remaining[victim.key]
            victims.append(victim)
        return victims

    def _one_slot_per_node(self) -> None:
        slots = self._slots()
        for key, slot in slots.items():
            node = self.seen.node(str(key))
            if not self._is_eligible(node) and not is_lost(node):
                why = "its node is to run this service no more" + (f" (index {node.version})" if node else "")
                for task in slot.tasks:
                    self._desire(task, TaskState.REMOVE, why)
        for node in self.seen.nodes():
            slot_or_none = slots.get(node.id)
            start_after = self.now if slot_or_none is None else self._may_start_again(slot_or_none)
            can_start = node.spec.availability is Availability.ACTIVE and node.status.state is NodeState.READY
            if start_after is not None and can_start and self._is_eligible(node):
                self._create(0, node.id, start_after, f"one task per node (index {node.version})")
                self.reasons.append("one task per node")

    def _may_start_again(self, slot: Slot) -> float | None:
        """Return when the empty slot of a node that is back may be filled; None when it is filled, or has given up.

        A task that was told to stop because its node was lost may have ended on its own account meanwhile, so a
        slot without a live task is empty for good only when the restart policy says so.
        """
        if slot.live:
            return None
        newest = slot.newest
        if newest.spec_version != self.service.spec_version:
            return self.now  # another spec is another chance
        if newest.state.is_failure or newest.state is TaskState.COMPLETE:
            return after_death(slot, newest, self.policy, now=self.now).start_after
        return self.now

    def _is_eligible(self, node: Node | None) -> bool:
        if node is None or is_drained(node) or is_lost(node):
            return False
        return satisfies(node, self.service.spec.task_template.placement.constraints)

    def _move(self) -> None:
        step = decide_moves(self.seen, self.service, self._slots(), now=self.now)
        for task in step.unmark:
            self._put(replace(self.tasks[task.id], move=None))
        for task, why in step.stop:
            self._desire(task, TaskState.SHUTDOWN, why)
        for slot, why in step.replace:
            self._replace(slot, Verdict(self.now, why))
        self.moments += step.moments

    def _rebalance(self) -> tuple[Change, ...]:
        """Marks that spread the service evenly again, for one that wants this by itself."""
        if not self.service.spec.move_config.rebalances or not can_be_rebalanced(self.service):
            return ()
        is_worth_it, look_again_at = looks_uneven(self.seen, self.service, now=self.now)
        if look_again_at is not None:
            self.moments.append(look_again_at)
        if not is_worth_it or any(len(slot.live) != 1 or not slot.is_running for slot in self._slots().values()):
            return ()
        plan, _ = rebalance(self.seen, [self.service], now=self.now)
        if plan.why:
            self.reasons.append(plan.why)
        return plan.changes

    def _update(self) -> None:
        step: UpdateStep = decide_update(self.seen, self.service, self._slots(), now=self.now)
        self.service_after = step.service
        self.extra += step.extra
        self.moments += step.moments
        if step.why:
            self.reasons.append(step.why)
        if step.service.spec_version != self.service.spec_version:
            return  # a rollback has just begun: the next decision works with its spec
        for slot in self._slots().values():
            if len(slot.live) < 2:
                continue
            for task in superseded(self.seen, self.service, slot):
                self._desire(task, TaskState.SHUTDOWN, f"the task of spec version {self.service.spec_version} runs")
            for task in in_the_way(self.seen, self.service, slot):
                self._desire(task, TaskState.SHUTDOWN, "its slot's new task has room nowhere else")
        stops_first = update_config(self.service).order is not UpdateOrder.START_FIRST
        for slot in step.replace:
            # Start-first keeps what runs; a task that does not has nothing to bridge.
            kept = [] if stops_first else [t for t in slot.live if t.state is TaskState.RUNNING][-1:]
            for task in (t for t in slot.live if t not in kept):
                self._desire(task, TaskState.SHUTDOWN, step.why)
            node_id = str(slot.key) if isinstance(slot.key, str) else ""
            self._create(0 if node_id else int(slot.key), node_id, self.now, step.why)

    def _start_what_may_start(self) -> None:
        for slot in self._slots().values():
            waiting = [t for t in slot.live if t.desired_state is TaskState.READY]
            for task in waiting:
                if task.start_after > self.now:
                    self.moments.append(task.start_after)
                elif task.id not in self.created and self._predecessors_stopped(slot, task):
                    self._desire(task, TaskState.RUNNING)

    def _predecessors_stopped(self, slot: Slot, task: Task) -> bool:
        stopping = [t for t in slot.tasks if t.id != task.id and self._is_stopping(t)]
        if not stopping:
            return True
        patience_ends = task.start_after + STOP_WAIT_SECONDS + max(map(self._may_take_to_stop, stopping))
        self.moments.append(patience_ends)
        return patience_ends <= self.now

    def _may_take_to_stop(self, task: Task) -> float:
        """Return how long a task was promised that it may take: to drain, and to end after the signal."""
        revision = self.seen.revision_of(task)
        if revision is None:
            return 0.0
        container = revision.task_template.container_spec
        return container.drain_delay_seconds + container.stop_grace_period_seconds

    def _is_stopping(self, task: Task) -> bool:
        """Whether a task that is no longer wanted may still run: on a node that is lost nobody can tell."""
        at_its_node = TaskState.ASSIGNED <= task.state <= TaskState.RUNNING
        return not task.is_wanted and at_its_node and not is_lost(self.seen.node(task.node_id))

    # -- the changes

    def _desire(self, task: Task, state: TaskState, why: str = "") -> None:
        current = self.tasks.get(task.id)
        if current is not None:
            self._put(desire(current, state, why))

    def _put(self, task: Task) -> None:
        self.tasks[task.id] = task
        self.table.put(task)

    def _touched(self) -> list[tuple[str, Task]]:
        return [(id, task) for id, task in self.tasks.items() if task is not self.stored[id]]

    def _replace(self, slot: Slot, verdict: Verdict) -> None:
        self.reasons.append(verdict.why)
        if verdict.start_after is not None:
            node_id = str(slot.key) if isinstance(slot.key, str) else ""
            self._create(0 if node_id else int(slot.key), node_id, verdict.start_after, verdict.why)

    def _create(self, slot: int, node_id: str, start_after: float, why: str) -> None:
        task = Task(
            id=self.new_id(),
            # Stamped again when it is written: until then the rest of this decision shall see it as the newest.
            created_at=self.now,
            service_id=self.service.id,
            slot=slot,
            node_id=node_id,
            spec_version=self.service.spec_version,
            status=TaskStatus(state=TaskState.PENDING, timestamp=self.now, message="waiting for a node"),
            desired_state=TaskState.RUNNING,
            start_after=start_after,
            why=why,
        )
        if start_after > self.now or any(self._is_stopping(t) for t in self.table.tasks_in(node_id or slot)):
            task = replace(task, desired_state=TaskState.READY)
            self.moments.append(start_after)
        self.created[task.id] = task
        self.table.put(task)
