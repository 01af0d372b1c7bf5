"""The checker itself: histories that are known to be possible or not, and random ones made by a real register."""

import random

from lib.linearizability import CompareAndSet, Operation, Read, Write, find_violation


def write(value, start, end, client=1, key="k"):
    return Operation(client, key, Write(value), None, start, end)


def read(value, start, end, client=2, key="k"):
    return Operation(client, key, Read(), value, start, end)


def cas(expected, value, result, start, end, client=3, key="k"):
    return Operation(client, key, CompareAndSet(expected, value), result, start, end)


def test_a_read_that_overlaps_a_write_may_see_either_value() -> None:
    assert find_violation([write(1, 0, 10), read(None, 1, 2), read(1, 3, 4)]) is None


def test_a_value_once_seen_does_not_go_back() -> None:
    violation = find_violation([write(1, 0, 10), read(1, 1, 2), read(None, 3, 4)])
    assert violation is not None
    assert "None of these can come next" in str(violation)


def test_a_stale_read_is_found() -> None:
    assert find_violation([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]) is not None


def test_a_lost_acknowledged_write_is_found() -> None:
    assert find_violation([write(1, 0, 1), read(None, 2, 3)]) is not None


def test_a_write_of_unknown_outcome_may_take_effect_late_or_never() -> None:
    unknown = write(1, 0, None)
    assert find_violation([unknown, read(None, 5, 6), read(1, 7, 8)]) is None
    assert find_violation([unknown, read(None, 5, 6)]) is None


def test_a_write_of_unknown_outcome_takes_effect_only_once() -> None:
    unknown = write(1, 0, None)
    assert find_violation([unknown, read(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8)]) is not None


def test_an_unknown_write_explains_a_failed_compare() -> None:
    assert find_violation([write(5, 0, 1), write(7, 2, None), cas(5, 6, False, 3, 4)]) is None
    assert find_violation([write(5, 0, 1), cas(5, 6, False, 3, 4)]) is not None


def test_two_compares_of_one_value_cannot_both_succeed() -> None:
    assert find_violation([cas(None, 1, True, 0, 5), cas(None, 2, True, 1, 6, client=4)]) is not None
    assert find_violation([cas(None, 1, True, 0, 5), cas(1, 2, True, 1, 6, client=4)]) is None


def test_keys_are_judged_by_themselves() -> None:
    violation = find_violation([write(1, 0, 1, key="a"), read(None, 2, 3, key="b"), read(None, 2, 3, key="a")])
    assert violation is not None
    assert violation.key == "a"


def made_by_a_register(seed: int, operations: int = 60, clients: int = 5) -> list[Operation]:
    """Take effect at one instant each, called before and returned after; some outcomes are forgotten."""
    chance = random.Random(seed)
    state = None
    busy_until = dict.fromkeys(range(clients), 0.0)
    history = []
    now = 0.0
    for number in range(operations):
        client = min(busy_until, key=busy_until.get)
        now = max(now, busy_until[client]) + chance.uniform(0.001, 1)
        start, end = now - chance.uniform(0, now - busy_until[client]), now + chance.uniform(0, 3)
        busy_until[client] = end
        known = end if chance.random() > 0.15 else None
        kind = chance.choice("rwc")
        if kind == "r":
            history.append(Operation(client, "k", Read(), state, start, known))
        elif kind == "w":
            history.append(Operation(client, "k", Write(number), None, start, known))
            state = number
        else:
            expected = state if chance.random() < 0.6 else -1
            history.append(Operation(client, "k", CompareAndSet(expected, number), expected == state, start, known))
            state = number if expected == state else state
    return history


def test_whatever_a_register_does_is_linearizable() -> None:
    for seed in range(60):
        assert find_violation(made_by_a_register(seed)) is None, f"seed {seed}"


def test_a_read_of_a_value_that_was_overwritten_long_before_is_found_in_any_history() -> None:
    found = 0
    for seed in range(60):
        history = made_by_a_register(seed)
        last = max(o.end or o.start for o in history)
        old = next(o for o in history if isinstance(o.call, Write) and o.end is not None)
        later = [Operation(9, "k", Write(f"new-{n}"), None, last + 2 * n, last + 2 * n + 1) for n in (1, 2)]
        stale = Operation(9, "k", Read(), old.call.value, last + 10, last + 11)
        found += find_violation([*history, *later, stale]) is not None
    assert found == 60
