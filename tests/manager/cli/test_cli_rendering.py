"""Words for moments and sizes, templates, and redrawing in place."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.manager.cli.progress.convergence import Progress, Slot
from pyswarm.manager.cli.progress.reporter import Reporter
from pyswarm.manager.cli.view.human import ago, length, size
from pyswarm.manager.cli.view.images import split_reference
from pyswarm.manager.cli.view.table import render_table
from pyswarm.manager.cli.view.tasks import natural
from pyswarm.manager.cli.view.template import render
from pyswarm.proto.errors import InvalidArgument
from pyswarm.proto.model.states import TaskState

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (5 * MINUTE, "5 minutes"),
        (HOUR, "About an hour"),
        (47 * HOUR, "47 hours"),
        (3 * DAY, "3 days"),
        (15 * DAY, "2 weeks"),
        (90 * DAY, "3 months"),
        (800 * DAY, "2 years"),
    ],
)
def test_a_length_of_time_in_dockers_words(seconds: float, text: str) -> None:
    assert length(seconds) == text


def test_a_clock_that_runs_ahead_counts_as_now() -> None:
    assert ago(20.0, 10.0) == "Less than a second ago"


def test_sizes_have_three_digits() -> None:
    assert [size(n) for n in (0, 999, 4_270_000, 1_234_567_890)] == ["0B", "999B", "4.27MB", "1.23GB"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.A}} {{ .B.C }}", "1 x"),
        ("{{json .B}}", '{"C": "x", "D": [1]}'),
        ('{{index .B "C"}}{{index .B "none"}}', "x"),
        ("{{.T}}{{title .B.C}}", "trueX"),
        ("a {{- .A -}} b", "a1b"),
        ("{{.B}}", '{"C": "x", "D": [1]}'),
        ("no action", "no action"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert render(template, {"A": 1, "B": {"C": "x", "D": [1]}, "T": True}) == text


@given(st.text(max_size=30))
def test_no_template_breaks_the_renderer(template: str) -> None:
    try:
        told = render("{{" + template, {"A": 1})
    except InvalidArgument as error:
        told = error.remedy
    assert isinstance(told, str)


@given(st.lists(st.text(max_size=10)))
def test_every_two_names_compare(names: list[str]) -> None:
    assert len(sorted(names, key=natural)) == len(names)


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    assert render_table(["A", "B"], [["long enough cell", "b"]]) == "A                  B\nlong enough cell   b"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [("r:5/web", ("r:5/web", "")), ("r:5/web:1@sha256:x", ("r:5/web", "1")), ("", ("", ""))],
)
def test_a_reference_is_split_at_its_tag(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_redrawn_in_place_and_only_when_something_changed() -> None:
    screen = Terminal()
    reporter = Reporter(screen)
    start = Progress("web", 0, 1, (Slot("1", TaskState.PENDING, False),))
    reporter.show([start])
    reporter.show([start])
    first = screen.getvalue()
    assert first.count("overall progress: 0 out of 1 tasks\n") == 1
    reporter.show([Progress("web", 1, 1, (Slot("1", TaskState.RUNNING, True),))])
    assert screen.getvalue()[len(first) :].startswith("\x1b[2A\x1b[Joverall progress: 1 out of 1 tasks\n")
