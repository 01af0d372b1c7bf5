"""Scheduled jobs: each moment is dealt with once, whoever leads; runs are remembered no longer than they shall be."""

from collections import Counter
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.builders import a_service_spec
from lib.world import WORK_SECONDS, World
from msgspec.structs import replace

from pyswarm.manager.orchestrator.reconcile import reconcile
from pyswarm.proto.codec.cron import check_schedule, last_moment, next_moment
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.objects import JobStatus, Service
from pyswarm.proto.model.spec import CronSchedule, ReplicatedJob, ServiceSpec
from pyswarm.proto.model.states import Concurrency, JobState, TaskState

MINUTE = 60.0
EVERY_MINUTE = CronSchedule("* * * * *")


def backup(schedule: CronSchedule = EVERY_MINUTE, **more: object) -> ServiceSpec:
    return a_service_spec("backup", job=ReplicatedJob(1, 1), schedule=schedule, **more)  # type: ignore[arg-type]


def until(world: World, moment: float) -> None:
    """Let the world go on until its clock has reached a moment."""
    while world.clock.now() < moment:
        before = world.clock.now()
        if world.round(not_after=moment) is None or world.clock.now() == before:
            world.clock.advance(moment - before)


def scheduled(schedule: CronSchedule = EVERY_MINUTE, **more: object) -> tuple[World, float]:
    """A world with the job, and the schedule's next moment."""
    world = World(nodes=2)
    world.create(backup(schedule, **more))
    world.round()
    return world, next_moment(schedule, world.clock.now())


def runs(service: Service) -> list[JobStatus]:
    return [run for run in (*service.runs, service.job_status) if run.iteration]


# -- moments


def test_nothing_runs_before_the_first_moment_and_then_one_run_a_moment():
    world, first = scheduled()
    until(world, first - 1)
    assert world.tasks("backup") == ()
    until(world, first + 2 * MINUTE + 30)
    assert [run.scheduled_at for run in runs(world.service("backup"))] == [first, first + MINUTE, first + 2 * MINUTE]
    assert Counter(t.job_iteration for t in world.tasks("backup")) == {1: 1, 2: 1, 3: 1}
    assert all(t.state is TaskState.COMPLETE for t in world.tasks("backup"))


def test_a_leader_change_neither_repeats_nor_forgets_a_moment():
    world, first = scheduled()
    until(world, first + 5)
    before = world.seen
    service = world.service("backup")
    # Whatever a new leader decides on what is stored: no other run.
    for at in (first + 5, first + 20, first + 59):
        plan = reconcile(before, service, now=at, new_id=world.new_id)
        assert all(getattr(c.object, "job_iteration", 1) == 1 for c in plan.changes)  # type: ignore[union-attr]
        assert plan.look_again_at is not None
        assert plan.look_again_at <= first + MINUTE


def test_two_leaders_that_decide_on_one_view_can_only_begin_one_run():
    world, first = scheduled()
    until(world, first - 1)
    service = world.service("backup")
    plans = [reconcile(world.seen, service, now=first, new_id=world.new_id) for _ in range(2)]
    assert plans[0] == plans[1]
    after = world.seen.with_changes(plans[0].changes, version=world.seen.version + 1)
    with pytest.raises(Exception, match="version"):
        after.with_changes(plans[1].changes, version=after.version + 1)


def test_a_missed_moment_is_made_up_for_within_the_window_and_only_the_last_one():
    world, first = scheduled(CronSchedule("* * * * *", missed_run_window_seconds=100))
    world.clock.advance(first + 5 * MINUTE + 30 - world.clock.now())  # nobody led
    world.round()
    world.round()
    assert [run.scheduled_at for run in runs(world.service("backup"))] == [first + 5 * MINUTE]


def test_a_moment_that_was_missed_by_more_than_the_window_is_skipped_and_told():
    world, first = scheduled(CronSchedule("0 * * * *", missed_run_window_seconds=60))
    world.clock.advance(first + 600 - world.clock.now())
    world.round()
    service = world.service("backup")
    assert runs(service) == []
    assert service.cron.last_at == first
    assert "missed by 600 s" in service.cron.message


# -- concurrency


def slow(policy: Concurrency) -> tuple[World, float]:
    """Runs of which each lasts longer than a minute: their node does nothing."""
    world, first = scheduled(CronSchedule("* * * * *", concurrency=policy))
    world.dead |= {"n1", "n2"}
    return world, first


def test_forbid_skips_a_moment_while_a_run_is_active():
    world, first = slow(Concurrency.FORBID)
    until(world, first + 2 * MINUTE + 5)
    service = world.service("backup")
    assert [run.iteration for run in runs(service)] == [1]
    assert service.cron.message == "run 1 was still active"


def test_allow_lets_runs_overlap_and_each_comes_to_its_end():
    world, first = slow(Concurrency.ALLOW)
    until(world, first + 2 * MINUTE + 5)
    assert [run.is_active for run in runs(world.service("backup"))] == [True, True, True]
    assert Counter(t.job_iteration for t in world.tasks("backup") if t.is_live) == {1: 1, 2: 1, 3: 1}
    world.dead.clear()
    until(world, first + 2 * MINUTE + 40)
    assert [run.state for run in runs(world.service("backup"))] == [JobState.COMPLETE] * 3


def test_replace_stops_the_active_run():
    world, first = slow(Concurrency.REPLACE)
    until(world, first + MINUTE + 5)
    service = world.service("backup")
    assert [(run.iteration, run.state) for run in runs(service)] == [(1, JobState.FAILED), (2, JobState.RUNNING)]
    assert runs(service)[0].message == "run 2 took its place"
    assert [t.job_iteration for t in world.tasks("backup") if t.is_live] == [2]


# -- what is remembered


def test_only_the_last_runs_are_remembered_with_their_tasks():
    world, first = scheduled(CronSchedule("* * * * *", keep_completed=2))
    until(world, first + 7 * MINUTE + 40)
    assert [run.iteration for run in runs(world.service("backup"))] == [6, 7, 8]
    assert {t.job_iteration for t in world.tasks("backup")} == {6, 7, 8}


def test_failed_runs_are_remembered_apart_from_completed_ones():
    schedule = CronSchedule("* * * * *", keep_completed=0, keep_failed=1)
    world, first = scheduled(schedule)
    service = world.service("backup")
    world.broken.add(service.spec.task_template.container_spec.image)
    policy = replace(service.spec.task_template.restart_policy, max_attempts=1, delay_seconds=1.0)
    world.update(replace(service.spec, task_template=replace(service.spec.task_template, restart_policy=policy)))
    until(world, first + 3 * MINUTE + 40)
    states = [run.state for run in runs(world.service("backup"))]
    assert states == [JobState.FAILED, JobState.FAILED]
    assert all("non-zero exit" in run.message for run in runs(world.service("backup")))


# -- what people change


def test_a_change_of_the_job_runs_nothing_and_counts_from_the_next_moment():
    world, first = scheduled()
    until(world, first + 30)
    spec = world.service("backup").spec
    template = spec.task_template
    image = replace(template.container_spec, image="r/backup:2")
    world.update(replace(spec, task_template=replace(template, container_spec=image)))
    until(world, first + 50)
    assert len(runs(world.service("backup"))) == 1
    until(world, first + MINUTE + 5)
    newest = max(world.tasks("backup"), key=lambda t: t.job_iteration)
    assert newest.spec_version == world.service("backup").spec_version


def test_a_forced_update_runs_it_now_once():
    world, first = scheduled(CronSchedule("0 0 1 1 *"))
    spec = world.service("backup").spec
    world.update(replace(spec, task_template=replace(spec.task_template, force_update=1)))
    until(world, world.clock.now() + 30)
    (run,) = runs(world.service("backup"))
    assert (run.state, run.scheduled_at) == (JobState.COMPLETE, 0.0)
    assert world.clock.now() < first


def test_a_suspended_schedule_does_not_run_and_makes_up_for_nothing():
    world, first = scheduled(replace(EVERY_MINUTE, missed_run_window_seconds=1000))
    spec = world.service("backup").spec
    assert spec.schedule is not None
    world.update(replace(spec, schedule=replace(spec.schedule, suspended=True)))
    until(world, first + 3 * MINUTE + 30)
    assert runs(world.service("backup")) == []
    world.update(spec)
    until(world, first + 3 * MINUTE + 50)
    assert runs(world.service("backup")) == []
    until(world, first + 4 * MINUTE + 5)
    assert [run.scheduled_at for run in runs(world.service("backup"))] == [first + 4 * MINUTE]


def test_a_job_that_loses_its_schedule_runs_as_any_job():
    world, first = scheduled()
    until(world, first + 30)
    world.update(replace(world.service("backup").spec, schedule=None))
    until(world, first + 50)
    service = world.service("backup")
    assert (service.job_status.iteration, service.job_status.state) == (2, JobState.COMPLETE)
    assert service.runs == ()


# -- time zones


def test_moments_are_those_of_the_time_zone_on_days_when_clocks_change():
    berlin = CronSchedule("30 2 * * *", "Europe/Berlin")
    zone = ZoneInfo("Europe/Berlin")
    before = datetime(2026, 3, 28, 12, tzinfo=zone).timestamp()
    moments = []
    for _ in range(3):
        before = next_moment(berlin, before)
        moments.append(datetime.fromtimestamp(before, zone).strftime("%m-%d %H:%M"))
    # 02:30 does not exist on the 29th: it runs right after the gap.
    assert moments == ["03-29 03:00", "03-30 02:30", "03-31 02:30"]
    autumn = datetime(2026, 10, 24, 12, tzinfo=zone).timestamp()
    twice = [next_moment(berlin, autumn), next_moment(berlin, next_moment(berlin, autumn))]
    assert twice[1] - twice[0] >= 24 * 3600


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["* * * * *", "*/7 3-5 * * *", "0 0 1 * *", "15 12 * * MON-FRI", "5 4 29 2 *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
    st.floats(1.6e9, 2.0e9),
)
def test_no_moment_lies_between_the_last_and_the_next(expression: str, zone: str, now: float):
    schedule = CronSchedule(expression, zone)
    last, following = last_moment(schedule, now), next_moment(schedule, now)
    assert last <= now < following
    assert next_moment(schedule, last - 0.5) <= following
    assert last_moment(schedule, following) == following


@pytest.mark.parametrize(
    ("expression", "zone", "told"),
    [
        ("* * * *", "UTC", "has 4 fields"),
        ("* * * * * *", "UTC", "has 6 fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("* * * * *", "Europe/Bielefeld", "is unknown"),
        ("* * * * *", "../etc/passwd", "is unknown"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(expression: str, zone: str, told: str):
    with pytest.raises(InvalidArgument, match=told):
        check_schedule(CronSchedule(expression, zone))


# -- whatever the leaders do

leading = st.lists(st.tuples(st.sampled_from(["lead", "gap", "force"]), st.integers(1, 400)), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(leading, st.sampled_from([Concurrency.FORBID, Concurrency.ALLOW, Concurrency.REPLACE]), st.integers(0, 200))
def test_no_moment_ever_has_two_runs_and_forbid_never_two_active_ones(script, policy, window):
    world, _ = scheduled(CronSchedule("* * * * *", concurrency=policy, missed_run_window_seconds=window))
    moments: Counter[float] = Counter()
    known: set[int] = set()

    def check(at: World) -> None:
        service = at.service("backup")
        for run in runs(service):
            if run.iteration not in known:
                known.add(run.iteration)
                if run.scheduled_at:
                    moments[run.scheduled_at] += 1
                    assert at.clock.now() - run.scheduled_at <= window + 1
        if policy is not Concurrency.ALLOW:
            assert sum(run.is_active for run in runs(service)) <= 1 + len(forced)

    forced: list[int] = []
    world.after_round.append(check)
    for what, seconds in script:
        if what == "gap":
            world.clock.advance(seconds)  # nobody leads
        elif what == "force":
            forced.append(seconds)
            spec = world.service("backup").spec
            number = spec.task_template.force_update + 1
            world.update(replace(spec, task_template=replace(spec.task_template, force_update=number)))
        else:
            until(world, world.clock.now() + seconds)
    assert all(count == 1 for count in moments.values())
    assert sorted(known) == list(range(1, len(known) + 1))
    assert WORK_SECONDS < MINUTE
