"""What a budget may never take away, and budgets that leave no room for it."""

import numpy as np
import pytest

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import Floors, PruningPlan, check_model
from fedprune.pruning.floors import held_units, top, units
from fedprune.tensor import Role, Schema, TensorSpec


def test_units_of_matrices_kernels_and_lines() -> None:
    assert units((4, 3)) == (4, 3, 1)
    assert units((8, 3, 5, 5)) == (8, 3, 25)
    assert units((7,)) == (1, 7, 1)
    assert units(()) == (1, 1, 1)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 6, 3, 3), (6, 1, 3, 3), (1, 1)])
def test_every_row_and_column_that_was_alive_holds_its_best_weight(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    alive = rng.random(shape) < 0.6
    alive[0] = False
    if shape[1] > 1:
        alive[:, 1] = False
    scores = np.where(alive, rng.random(shape, np.float32), np.float32(-np.inf))
    held = held_units(scores, alive)
    rows, columns, inner = units(shape)
    assert not (held & ~alive).any()
    for line, mine in [(alive.reshape(rows, -1), held.reshape(rows, -1))]:
        assert (line.any(1) == mine.any(1)).all()
        assert mine.sum() <= rows + columns
    across = (0, 2)
    was, now = alive.reshape(rows, columns, inner), held.reshape(rows, columns, inner)
    assert (was.any(across) == now.any(across)).all()
    for row in np.flatnonzero(was.any((1, 2))):
        assert held[row].reshape(-1)[scores[row].reshape(-1).argmax()]


def test_top_breaks_ties_by_position() -> None:
    scores = np.array([1, 2, 2, 0, 2, 3], np.float32)
    assert top(scores, 3).tolist() == [False, True, True, False, False, True]
    assert not top(scores, 0).any()
    assert top(scores, 9).all()


def test_least_is_a_lower_bound_that_a_diagonal_reaches() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(40, 30)), TensorSpec(name="v", shape=(10,))))
    assert Floors(weights=0, share=0.0).least(schema) == 40
    assert Floors().least(schema) == 40 + 10
    assert Floors(weights=50).least(schema) == 50 + 10
    assert Floors(weights=2, share=0.0, connect=False).least(schema) == 4


def test_a_density_below_the_floors_is_refused_with_one_that_is_not() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(100, 30)),))
    with pytest.raises(LocalError, match="floors hold more") as caught:
        check_model(PruningPlan(density=0.01), schema)
    assert "30 of 3000" in str(caught.value)
    assert "at least 100" in str(caught.value)
    check_model(PruningPlan(density=0.0334), schema)  # what the message says to do


def test_nothing_to_prune_is_refused_only_when_pruning_is_on() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(4, 4), role=Role.FREE),))
    check_model(PruningPlan(), schema)
    with pytest.raises(LocalError, match="no tensor can be pruned"):
        check_model(PruningPlan(density=0.5), schema)
    assert Mask.full(schema).alive_count == 0


@pytest.mark.parametrize("bad", [{"weights": -1}, {"share": 1.1}, {"share": -0.1}])
def test_floors_refuse_bad_numbers(bad: dict[str, float]) -> None:
    with pytest.raises(LocalError, match="out of range"):
        Floors(**bad)  # type: ignore[arg-type]  # wrong on purpose


def test_a_column_that_a_row_already_serves_holds_no_second_weight() -> None:
    scores = np.array([[5, 4], [2, 3]], np.float32)
    # The best of column 1 is 4, but 3 is held for its row and serves the column too.
    assert held_units(scores, np.ones((2, 2), np.bool_)).tolist() == [[True, False], [False, True]]
