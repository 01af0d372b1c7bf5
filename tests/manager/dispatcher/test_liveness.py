"""How much silence is borne: a dead node is found in seconds, a slow one is not taken for dead."""

from itertools import count

from pyswarm.manager.dispatcher.liveness import GRACE_PERIODS, NEW_LEADER_PERIODS, Liveness


def test_a_node_that_falls_silent_is_down_after_three_periods():
    table = Liveness(1.0)
    table.register("n1", "s1", now=0.0)
    for second in range(1, 6):
        assert table.beat("n1", "s1", now=float(second))
    assert table.next_deadline() == 5.0 + GRACE_PERIODS
    assert table.expired(now=7.9) == []
    assert table.expired(now=8.0) == ["n1"]
    assert table.expired(now=9.0) == [], "it is told once"


def test_a_node_whose_heartbeats_come_late_is_given_more_time():
    table = Liveness(1.0)
    table.register("n1", "s1", now=0.0)
    now = 0.0
    for number in count():
        # Every other heartbeat is well late, though never by the whole grace.
        now += 1.0 if number % 2 else 2.8
        assert table.expired(now=now) == []
        table.beat("n1", "s1", now=now)
        if number == 20:
            break
    assert table.next_deadline() is not None
    assert table.next_deadline() > now + GRACE_PERIODS + 1
    assert table.expired(now=now + 10.1) == ["n1"], "there is an end to patience"


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
    assert table.expired(now=NEW_LEADER_PERIODS - 0.1) == []
    assert table.expired(now=NEW_LEADER_PERIODS) == ["n1"]


def test_a_node_that_said_goodbye_is_not_missed():
    table = Liveness(1.0)
    table.register("n1", "s1", now=0.0)
    table.forget("n1")
    assert table.expired(now=100.0) == []
    assert table.next_deadline() is None
