"""What is said of a plan and a model before the first round."""

from __future__ import annotations

import pytest

from fedprune.pruning import Floors, PruningPlan
from fedprune.pruning.model import dear_floors
from fedprune.tensor import Schema, TensorSpec

# 64 inputs, 256 and 128 units: at least 256 weights of each matrix keep a row or a column alive.
SCHEMA = Schema(tensors=(TensorSpec(name="a", shape=(256, 64)), TensorSpec(name="b", shape=(128, 256))))


@pytest.mark.parametrize(
    ("density", "said"), [(0.02, True), (0.0208, True), (0.021, False), (0.1, False), (1.0, False)]
)
def test_floors_that_take_more_than_half_are_told(density: float, said: bool) -> None:
    words = dear_floors(PruningPlan(density=density), SCHEMA)
    assert bool(words) == said
    if density == 0.02:
        assert words.startswith(
            "512 of the 983 weights that stay only keep a row or a column alive; with pruning.connect"
        )


def test_who_lets_units_go_hears_nothing() -> None:
    assert not dear_floors(PruningPlan(density=0.02, floors=Floors(connect=False)), SCHEMA)
