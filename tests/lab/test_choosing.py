"""A choice is as sure as its folds are, pair by pair."""

from __future__ import annotations

import pytest

from fedprune_lab.choosing import choose
from fedprune_lab.strategies import Key


def folds(*values: float) -> dict[Key, float]:
    return {(1, fold): value for fold, value in enumerate(values)}


def test_the_best_mean_is_chosen_and_hard_folds_cancel() -> None:
    """The folds differ by twenty points, the strategies by two in each."""
    choice = choose({"thin": folds(0.50, 0.60, 0.71), "thick": folds(0.52, 0.62, 0.725)})
    assert choice is not None
    assert (choice.strategy, choice.runner_up, choice.folds) == ("thick", "thin", 3)
    assert choice.ahead == pytest.approx(0.0183, abs=1e-4)
    assert 0.01 < choice.low < choice.ahead < choice.high < 0.03
    assert str(choice).endswith("points ahead of thin (95 % interval 1.12 to 2.55)")


def test_what_the_folds_do_not_tell_apart_is_said() -> None:
    choice = choose({"thin": folds(0.6, 0.5, 0.7), "thick": folds(0.5, 0.7, 0.63)})
    assert choice is not None
    assert choice.low < 0 < choice.high
    assert "do not tell them apart" in str(choice)


def test_one_strategy_and_none() -> None:
    choice = choose({"thin": folds(0.6, 0.5), "broken": {}})
    assert choice is not None
    assert str(choice) == "chosen over 2 folds: thin, 55.00 % on held-out data".replace(" %", "%")
    assert choose({"broken": {}}) is None
