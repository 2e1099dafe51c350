"""Paired differences against what a textbook's formula gives, and results that are kept line by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import ttest_rel

from fedprune_lab import paired


@pytest.mark.parametrize(("text", "seeds"), [("3", [3]), ("1-4", [1, 2, 3, 4]), ("2,5-6", [2, 5, 6])])
def test_seeds_are_read(text: str, seeds: list[int]) -> None:
    assert paired.seeds(text) == seeds


@pytest.mark.parametrize("count", [2, 3, 10, 16])
def test_the_interval_is_students(count: int) -> None:
    values = {seed: 0.5 + 0.01 * (seed * 7 % 5) for seed in range(count)}
    against = {seed: 0.55 + 0.01 * (seed * 3 % 4) for seed in range(count)}
    found = paired.lost(values, against)
    wanted = ttest_rel(list(against.values()), list(values.values())).confidence_interval(0.95)
    assert found is not None
    assert found.half_width is not None
    assert found.mean == pytest.approx((wanted.low + wanted.high) / 2)
    assert found.half_width == pytest.approx((wanted.high - wanted.low) / 2, rel=1e-3)


def test_only_seeds_that_both_have_are_compared() -> None:
    found = paired.lost({1: 0.5, 2: 0.6}, {2: 0.7, 3: 0.9})
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert (found.half_width, found.seeds) == (None, 1)
    assert paired.lost({1: 0.5}, {2: 0.5}) is None


def test_results_are_added_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    assert paired.rows(path) == []
    paired.keep(path, {"seed": 1})
    paired.keep(path, {"seed": 2})
    assert paired.rows(path) == [{"seed": 1}, {"seed": 2}]
