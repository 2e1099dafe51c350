"""Plots as SVG: well-formed, every point in its place, and nothing drawn that was not measured."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune_lab.reporting.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    heat_map,
    line_chart,
    round_values,
)

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


def chart(*lines: Line, log: bool = False) -> str:
    return line_chart(
        "a < b", lines, x_name="round", x_wording=lambda v: f"{v:g}", y_wording=lambda v: f"{v:g}", log=log
    )


def route(svg: str) -> list[tuple[float, float]]:
    (found,) = re.findall(r'<path class="[^"]*" d="M([^"]*)"', svg)
    return [(float(a), float(b)) for a, b in (pair.split() for pair in found.split("L"))]


def test_the_corners_of_the_data_are_the_corners_of_the_plot() -> None:
    points = route(chart(Line(name="l", points=[(0, 0.0), (10, 1.0)])))
    assert points == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]


def test_a_decade_is_as_high_as_the_next() -> None:
    heights = [h for _, h in route(chart(Line(name="l", points=[(1, 1.0), (2, 10.0), (3, 100.0)]), log=True))]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


def test_what_was_not_measured_is_not_drawn() -> None:
    gaps = [(1, 0.5), (2, None), (3, float("nan")), (4, 0.7)]
    assert len(route(chart(Line(name="l", points=gaps)))) == 2
    assert chart(Line(name="l", points=[(1, None)])) == ""
    assert chart() == ""
    assert len(route(chart(Line(name="l", points=[(1, 0.0), (2, 1.0), (3, 2.0)]), log=True))) == 2


def test_a_single_point_is_a_dot() -> None:
    assert "<circle" in chart(Line(name="l", points=[(1, 0.5)]))


def test_words_of_users_stay_words() -> None:
    picture = chart(Line(name="<script>&", points=[(1, 1.0), (2, 2.0)]))
    assert "<script>" not in picture
    ElementTree.fromstring(picture)
    ElementTree.fromstring(heat_map("<b>", [("<i>", [1.0, 0.5])]))


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=20))
def test_no_point_leaves_the_plot(points: list[tuple[float, float]]) -> None:
    picture = chart(Line(name="l", points=points))
    ElementTree.fromstring(picture)
    for x, y in route(picture) if len(points) > 1 else []:
        assert LEFT - 0.06 <= x <= WIDTH - RIGHT + 0.06
        assert TOP - 0.06 <= y <= HEIGHT - BOTTOM + 0.06


@given(FINITE, FINITE)
def test_ticks_span_the_values_and_are_few(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = round_values(low, high)
    assert 2 <= len(ticks) <= 9
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


def test_a_heat_map_has_a_strip_for_each_layer_and_joins_equal_rounds() -> None:
    root = ElementTree.fromstring(heat_map("density", [("a", [1.0, 1.0, 0.25, None]), ("b", [0.0] * 4)]))
    strips = root.findall(".//svg")
    cells = [(r.get("x"), r.get("width"), r.get("fill-opacity")) for r in strips[0]]
    assert cells == [("0", "2", "1.000"), ("2", "1", "0.530")]
    assert list(strips[1]) == []
    assert [b.text for b in root.findall(".//b")] == ["25.0 %", "0.0 %"]
