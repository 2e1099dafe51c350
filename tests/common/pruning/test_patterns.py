"""Patterns find what they name, or say that they do not."""

import pytest

from fedprune.errors import LocalError
from fedprune.pruning.patterns import matching, resolve

NAMES = ("conv1.weight", "conv2.weight", "head.weight")


def test_patterns_become_names() -> None:
    assert matching("conv?.weight", NAMES, key="k") == NAMES[:2]
    assert resolve({"conv*": 0.5, "head.weight": 1.0}, NAMES, key="k") == {
        "conv1.weight": 0.5,
        "conv2.weight": 0.5,
        "head.weight": 1.0,
    }


def test_agreement_is_no_contradiction() -> None:
    assert resolve({"conv*": 0.5, "*2*": 0.5}, NAMES, key="k")["conv2.weight"] == 0.5


def test_a_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(LocalError, match=r"pruning\.layers: the pattern 'Conv\*' matches no tensor"):
        resolve({"Conv*": 0.5}, NAMES, key="pruning.layers")


def test_a_contradiction_names_both_patterns_and_the_layer() -> None:
    with pytest.raises(LocalError, match=r"'conv\*' and '\*2\*' contradict each other about 'conv2\.weight'"):
        resolve({"conv*": 0.5, "*2*": 0.4}, NAMES, key="pruning.layers")
