"""Paired intervals against scipy, and what they say of few, equal or missing units."""

from math import inf

import numpy as np
import pytest
from scipy import stats

from fedprune.errors import LocalError
from fedprune.pruning.comparison import Measured, paired_drop, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 30, 359])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.995])
def test_quantiles_of_student(probability: float, freedom: int) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-5, abs=1e-9)


def of(values: list[float], examples: list[float] | None = None) -> dict[str, Measured]:
    weights = examples or [1.0] * len(values)
    return {f"c{k}": Measured(value=v, examples=n) for k, (v, n) in enumerate(zip(values, weights, strict=True))}


def test_equal_weights_give_the_textbook_interval() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(12).tolist(), rng.random(12).tolist()
    found = paired_drop(of(before), of(after), 0.9)
    book = stats.ttest_rel(before, after).confidence_interval(0.9)
    assert found.low == pytest.approx(book.low, rel=1e-4)
    assert found.high == pytest.approx(book.high, rel=1e-4)
    assert found.mean == pytest.approx(np.mean(before) - np.mean(after))
    assert found.pairs == 12


def test_pairing_sees_a_drop_that_hard_units_would_hide() -> None:
    hard = np.linspace(0.2, 0.95, 10)
    found = paired_drop(of(hard.tolist()), of((hard - 0.02 - np.tile([0.001, -0.001], 5)).tolist()))
    assert 0.018 < found.low < 0.02 < found.high < 0.022
    assert stats.ttest_ind(hard, hard - 0.02).pvalue > 0.5, "unpaired, nothing would be seen"


def test_units_weigh_by_examples() -> None:
    found = paired_drop(of([0.9, 0.8], [300, 100]), of([0.8, 0.8], [1, 999]))
    assert found.mean == pytest.approx(0.075)
    assert found.low < 0.075 < found.high


def test_only_common_units_count() -> None:
    before = of([0.9, 0.8, 0.7])
    after = {"c0": Measured(value=0.8), "c9": Measured(value=0.0)}
    alone = paired_drop(before, after)
    assert (alone.pairs, alone.low, alone.high) == (1, -inf, inf)
    assert alone.mean == pytest.approx(0.1)
    none = paired_drop(before, {})
    assert (none.pairs, none.mean) == (0, inf)


def test_no_difference_at_all_is_certain() -> None:
    found = paired_drop(of([0.9, 0.8]), of([0.9, 0.8]))
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_nonsense_is_refused() -> None:
    with pytest.raises(LocalError, match="no such measurement"):
        Measured(value=float("nan"))
    with pytest.raises(LocalError, match="no such measurement"):
        Measured(value=0.5, examples=0)
    with pytest.raises(LocalError, match="no such quantile"):
        t_quantile(1.0, 3)
