"""Lengths of time, sizes and CPUs read as people write them, and written so that they read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.proto.codec.units import (
    format_bytes,
    format_duration,
    format_nano_cpus,
    parse_bytes,
    parse_duration,
    parse_nano_cpus,
)
from pyswarm.proto.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30s", 90), ("500ms", 0.5), ("0", 0), ("1.5h", 5400), ("10us", 1e-5), ("2160h", 7776000), (".5s", 0.5)],
)
def test_a_length_of_time_is_read_as_go_writes_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 s", "-1s", "1d", "s", "1m30", "٣s", "9" * 30 + "h"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_duration(text)


@given(st.integers(0, 10**15))
def test_a_written_length_of_time_reads_back(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "size"), [("50M", 50 << 20), ("1.5g", 3 << 29), ("64KiB", 65536), ("4096", 4096), ("1kb", 1024), ("5b", 5)]
)
def test_a_size_counts_in_powers_of_1024(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1 MX", "1e3", "9" * 40, "1,5M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "nano"), [("0.5", 500_000_000), ("2", 2 * 10**9), ("0.000000001", 1)])
def test_cpus_are_billionths(text: str, nano: int) -> None:
    assert parse_nano_cpus(text) == nano
    assert format_nano_cpus(nano) == text


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "0.0000000001", "two", "1e999999"])
def test_what_is_no_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_nano_cpus(text)


def test_sizes_are_shown_in_binary_units() -> None:
    assert [format_bytes(n) for n in (0, 1000, 50 << 20, 3 << 29)] == ["0B", "1000B", "50MiB", "1.5GiB"]


@given(st.text(max_size=20))
def test_no_text_breaks_the_readers(text: str) -> None:
    for parse in (parse_duration, parse_bytes, parse_nano_cpus):
        try:
            value: float | None = parse(text)
            remedy = ""
        except InvalidArgument as error:
            value, remedy = None, error.remedy
        assert remedy if value is None else value >= 0
