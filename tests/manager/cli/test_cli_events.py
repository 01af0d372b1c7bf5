"""`pyswarm events` against a whole manager in memory."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lib.builders import a_node
from lib.live_manager import LiveManager, live_manager


@pytest.fixture
def manager(pyswarm: Any) -> Iterator[LiveManager]:
    """One node, and a service that was created, scaled and removed."""
    with live_manager(pyswarm.paths.manager_socket) as live:
        live.add(a_node("n1"))
        pyswarm.ok("service", "create", "-d", "--name", "web", "--replicas", "1", "r/web:1")
        live.until(lambda: len(live.running("web")) == 1)
        pyswarm.ok("service", "scale", "-d", "web=2")
        live.until(lambda: len(live.running("web")) == 2)
        pyswarm.ok("node", "update", "--availability", "pause", "n1")
        pyswarm.ok("service", "rm", "web")
        live.until(lambda: not list(live.seen.tasks()))
        yield live


def told(pyswarm: Any, *filters: str) -> list[dict[str, Any]]:
    flags = [word for text in filters for word in ("--filter", text)]
    out = pyswarm.ok("events", "--since", "1h", "--until", "0s", "--format", "json", *flags)
    return [json.loads(line) for line in out.splitlines()]


def test_the_past_is_told_in_order_and_then_it_ends(pyswarm: Any, manager: LiveManager):
    events = told(pyswarm, "type=service")
    assert [event["Action"] for event in events] == ["create", "update", "remove"]
    assert events[1]["Actor"]["Attributes"] == {"name": "web", "replicas.old": "1", "replicas.new": "2"}
    assert [e["Index"] for e in events] == sorted(e["Index"] for e in events)
    assert all(e["time"] > 0 for e in events)


def test_a_task_is_followed_from_state_to_state(pyswarm: Any, manager: LiveManager):
    events = told(pyswarm, "type=task", "name=web.1")
    states = [e["Actor"]["Attributes"].get("state.new") for e in events]
    assert [state for state in states if state] == ["assigned", "running", "shutdown"]
    assert events[0]["Actor"]["Attributes"]["state"] == "pending"
    stopped = next(e for e in events if e["Actor"]["Attributes"].get("desired.new") == "remove")
    assert stopped["Actor"]["Attributes"]["why.new"] == "service web was removed"


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["type=node"], 2),
        (["type=node", "event=update"], 1),
        (["node=n1", "type=node"], 2),
        (["service=web", "event=remove"], 3),
        (["service=web", "event=remove", "type=service"], 1),
        (["type=secret"], 0),
    ],
)
def test_filters_narrow_what_is_told(pyswarm: Any, manager: LiveManager, filters: list[str], count: int):
    assert len(told(pyswarm, *filters)) == count


def test_people_read_lines_and_templates(pyswarm: Any, manager: LiveManager):
    out = pyswarm.ok("events", "--since", "1h", "--until", "0s", "--filter", "type=node", "--filter", "event=update")
    assert "Z node update n1 (availability.new=pause, availability.old=active, name=n1)" in out
    template = pyswarm.ok(
        "events", "--since", "1h", "--until", "0s", "-f", "type=service", "--format", "{{.Type}} {{.Action}}"
    )
    assert template.splitlines() == ["service create", "service update", "service remove"]


def test_a_filter_or_type_that_there_is_not_is_refused(pyswarm: Any, manager: LiveManager):
    assert "invalid filter" in pyswarm.fails("events", "--filter", "colour=red")
    assert "there are no events of volume" in pyswarm.fails("events", "--until", "0s", "--filter", "type=volume")


def test_it_ends_when_a_moment_to_come_has_come(pyswarm: Any, manager: LiveManager):
    import time

    soon = time.time() + 0.3
    assert pyswarm.ok("events", "--until", str(soon)) == ""
    assert time.time() >= soon
