from __future__ import annotations

import pytest

from fedprune.traffic import Ratio
from fedprune_lab import figures


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (20_345, "20.3 kB"),
        (999_949, "999.9 kB"),
        (999_951, "1.00 MB"),
        (601_768, "601.8 kB"),
        (44_729_720, "44.7 MB"),
        (2_500_000_000, "2.50 GB"),
        (5_000_000_000_000, "5000 GB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0431, "43 ms"), (0.9999, "1.0 s"), (12.34, "12.3 s"), (59.97, "1 min 0 s"), (125, "2 min 5 s")],
)
def test_durations(value: float, text: str) -> None:
    assert figures.seconds(value) == text


def test_shares_gaps_and_ratios() -> None:
    assert (figures.percent(0.9724), figures.percent(None)) == ("97.2 %", "-")
    assert (figures.points(0.0031), figures.points(-0.012), figures.points(None)) == ("+0.31", "-1.20", "-")
    assert figures.points(-1e-9) == "+0.00"
    assert (figures.times(9.567), figures.times(12.34), figures.times(None)) == ("9.57x", "12.3x", "-")


def test_both_directions() -> None:
    assert figures.ratio_up_down(Ratio(up=2.0, down=None, both=3.0)) == "2.00x up, - down"
    assert figures.ratio_up_down(None) == "-"
