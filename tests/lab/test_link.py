"""When bytes arrive over a line of a given rate, delay and jitter, by a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.errors import ConfigError
from fedprune_lab.link import BACKLOG_S, SMALLEST_SLICE, Line, Link, bit_per_s, rate_text, seconds


def test_an_unlimited_line_adds_nothing() -> None:
    line = Line(Link())
    assert [line.arrival_s(5.0, 1 << 20), line.arrival_s(5.0, 1)] == [5.0, 5.0]
    assert line.wait_s(5.0) == 0.0


def test_bytes_take_their_time_and_then_the_delay() -> None:
    line = Line(Link(rate_bit_per_s=8000, delay_s=0.25))
    assert line.arrival_s(10.0, 1000) == 11.25
    assert line.arrival_s(10.5, 500) == 11.75  # behind the first
    assert line.arrival_s(20.0, 500) == 20.75  # the line was free again


def test_the_delay_does_not_slow_the_line_down() -> None:
    line = Line(Link(rate_bit_per_s=8000, delay_s=9.0))
    arrivals = [line.arrival_s(0.0, 100) for _ in range(10)]
    assert arrivals[-1] - arrivals[0] == pytest.approx(0.9)


def test_a_sender_is_held_up_by_what_waits_before_the_line() -> None:
    line = Line(Link(rate_bit_per_s=8000))
    line.arrival_s(0.0, 1000)
    assert line.wait_s(0.0) == pytest.approx(1.0 - BACKLOG_S)
    assert line.wait_s(1.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5000)), max_size=40), st.integers(0, 99))
def test_nothing_overtakes_and_nothing_is_early(sent: list[tuple[float, int]], seed: int) -> None:
    link = Link(rate_bit_per_s=1e6, delay_s=0.04, jitter_s=0.04)
    rng = random.Random(seed)
    line = Line(link, lambda: rng.uniform(-1, 1))
    now_s = last_s = 0.0
    for pause_s, count in sent:
        now_s += pause_s
        arrival_s = line.arrival_s(now_s, count)
        assert arrival_s >= last_s
        assert arrival_s >= now_s + 8 * count / 1e6 + link.delay_s - link.jitter_s - 1e-9
        last_s = arrival_s


def test_slices_are_what_a_line_carries_in_a_moment() -> None:
    assert Link(rate_bit_per_s=10e6).slice_bytes == 6250
    assert Link(rate_bit_per_s=1e3).slice_bytes == SMALLEST_SLICE
    assert Link().slice_bytes == Link(rate_bit_per_s=1e12).slice_bytes == 1 << 16


def test_as_many_slices_are_under_way_as_the_line_holds() -> None:
    link = Link(rate_bit_per_s=10e6, delay_s=0.04)
    assert link.slices_under_way * link.slice_bytes >= 10e6 / 8 * 0.04
    assert Link().slices_under_way == 1


@pytest.mark.parametrize("wrong", [{"rate_bit_per_s": -1.0}, {"delay_s": -1.0}, {"delay_s": 0.1, "jitter_s": 0.2}])
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Link(**wrong)


def test_reads_rates_and_times() -> None:
    assert [bit_per_s(t) for t in ("1mbit", "2.5Gbit", "64kbit", "7bit")] == [1e6, 2.5e9, 64e3, 7.0]
    assert [seconds(t) for t in ("40ms", "1.5s", "100us")] == pytest.approx([0.04, 1.5, 1e-4])
    assert [rate_text(r) for r in (1e6, 64e3, 2.5e9, 0.5)] == ["1mbit", "64kbit", "2.5gbit", "0.5bit"]


@pytest.mark.parametrize("text", ["10", "mbit", "10 mbits", "-1mbit", "40ms", "1e6bit"])
def test_says_how_a_rate_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match="a rate such as 10mbit"):
        bit_per_s(text)
