"""How much silence is borne: a dead node is found in seconds, a blip or a slow node is not taken for death."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.manager.dispatcher.liveness import (
    BEATS_PER_SECOND_MAX,
    BLIP_SECONDS,
    LATENESS_SECONDS_MAX,
    NEW_LEADER_SECONDS,
    RETURN_SECONDS,
    Liveness,
    grace_seconds,
)


def even(table: Liveness, node_id: str = "n1", *, beats: int = 10) -> float:
    """Let a node beat on time; return the moment of its last beat."""
    table.register(node_id, "s1", now=0.0)
    now = 0.0
    for _ in range(beats):
        now += table.period_seconds
        assert table.beat(node_id, "s1", now=now)
    return now


def test_a_node_that_falls_silent_is_down_after_the_grace_and_told_once():
    table = Liveness(0.5)
    last = even(table)
    assert table.next_deadline() == last + grace_seconds(0.5)
    assert table.expired(now=last + grace_seconds(0.5) - 0.01) == []
    assert table.expired(now=last + grace_seconds(0.5)) == ["n1"]
    assert table.expired(now=last + 60.0) == []


def test_a_dead_node_of_a_small_cluster_is_found_early_enough_to_replace_its_tasks_within_five_seconds():
    assert grace_seconds(0.5) <= 4.5


@given(began=st.floats(0.0, 0.499), blip=st.floats(0.0, BLIP_SECONDS), back=st.floats(0.0, RETURN_SECONDS - 0.001))
def test_no_blip_takes_a_node_down_whenever_it_begins(began: float, blip: float, back: float):
    table = Liveness(0.5)
    heard_again = even(table) + began + blip + back
    assert table.expired(now=heard_again) == []
    assert table.beat("n1", "s1", now=heard_again)


@pytest.mark.parametrize("blips", [2, 100])
def test_blip_after_blip_takes_no_node_down(blips: int):
    table = Liveness(0.5)
    now = even(table)
    for _ in range(blips):
        now += 0.5 + BLIP_SECONDS + RETURN_SECONDS - 0.01
        assert table.expired(now=now) == []
        table.beat("n1", "s1", now=now)


def test_a_node_whose_heartbeats_come_late_is_given_more_time_and_there_is_an_end_to_patience():
    table = Liveness(1.0)
    now = even(table)
    for number in range(20):
        now += 1.0 if number % 2 else 4.0
        table.beat("n1", "s1", now=now)
    deadline = table.next_deadline()
    assert deadline is not None
    assert deadline > now + grace_seconds(1.0) + 1
    assert table.expired(now=now + grace_seconds(1.0) + LATENESS_SECONDS_MAX) == ["n1"]


def test_the_period_grows_with_the_cluster_so_that_heartbeats_never_overrun_the_leader():
    table = Liveness(0.5)
    for number in range(5_000):
        table.register(f"n{number}", "s", now=0.0)
    assert table.period_seconds == 5_000 / BEATS_PER_SECOND_MAX


def test_a_node_is_held_to_the_period_it_was_told_not_to_a_shorter_one_of_later():
    table = Liveness(0.5)
    for number in range(2_000):
        table.register(f"n{number}", "s", now=0.0)
    for number in range(2_000):
        table.beat(f"n{number}", "s", now=0.1)
    for number in range(1, 2_000):
        table.forget(f"n{number}")
    assert table.period_seconds == 0.5
    assert table.next_deadline() == pytest.approx(0.1 + grace_seconds(2_000 / BEATS_PER_SECOND_MAX))


def test_a_new_session_voids_the_one_before():
    table = Liveness(1.0)
    table.register("n1", "s1", now=0.0)
    table.register("n1", "s2", now=1.0)
    assert not table.beat("n1", "s1", now=1.5)
    assert table.beat("n1", "s2", now=1.5)
    assert not table.is_current("n1", "s1")


def test_a_new_leader_gives_every_node_time_to_come():
    table = Liveness(1.0)
    table.expect("n1", now=0.0)
    assert table.expired(now=grace_seconds(1.0) + NEW_LEADER_SECONDS - 0.1) == []
    assert table.expired(now=grace_seconds(1.0) + NEW_LEADER_SECONDS) == ["n1"]


def test_a_node_that_said_goodbye_is_not_missed():
    table = Liveness(1.0)
    table.register("n1", "s1", now=0.0)
    table.forget("n1")
    assert table.expired(now=100.0) == []
    assert table.next_deadline() is None


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["register", "beat", "forget", "expect", "look"]),
            st.sampled_from(["n1", "n2", "n3"]),
            st.floats(0.0, 3.0),
        ),
        max_size=60,
    )
)
def test_whatever_happened_a_node_expires_exactly_at_its_own_deadline(steps: list[tuple[str, str, float]]):
    table = Liveness(0.5)
    now = 0.0
    for action, node_id, seconds in steps:
        now += seconds
        if action == "register":
            table.register(node_id, "s", now=now)
        elif action == "beat":
            table.beat(node_id, "s", now=now)
        elif action == "forget":
            table.forget(node_id)
        elif action == "expect":
            table.expect(node_id, now=now)
        else:
            # Each node judged by itself, without the queue that spares looking at all of them.
            late = sorted(id for id, heard in table._heard.items() if table._deadline(heard) <= now)
            assert table.expired(now=now) == late
        earliest = min((table._deadline(heard) for heard in table._heard.values()), default=None)
        assert table.next_deadline() == earliest
