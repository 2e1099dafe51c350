"""Data scores: batches of any size add up to the score of the whole sample."""

import numpy as np
import pytest

from fedprune.errors import LocalError
from fedprune.pruning.accumulate import FORMULAS, GradientScore, over_rows, unit_activity, unit_nonzero, wanda

W = {"w": np.array([[1.0, -2.0], [0.5, 0.0]], np.float32)}
G1 = {"w": np.array([[1.0, 1.0], [-4.0, 3.0]], np.float32)}
G2 = {"w": np.array([[-1.0, 3.0], [0.0, 3.0]], np.float32)}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("gradient", [[0.5, 1.5], [3.0, 3.0]]),  # mean g, batches of 3 and 1
        ("snip", [[0.5, 3.0], [1.5, 0.0]]),
        ("taylor", [[0.25, 9.0], [2.25, 0.0]]),
        ("fisher", [[1.0, 3.0], [12.0, 9.0]]),
        ("movement", [[-0.5, 3.0], [1.5, 0.0]]),
    ],
)
def test_formulas_over_two_batches(method: str, expected: list[list[float]]) -> None:
    running = GradientScore(method=method)
    running.add(G1, W, 3)
    running.add(G2, W, 1)
    assert running.examples == 4
    assert running.result()["w"] == pytest.approx(np.array(expected, np.float32))
    assert (G1["w"] == [[1, 1], [-4, 3]]).all(), "the caller's gradients stay as they are"


def test_no_batch_no_score() -> None:
    with pytest.raises(LocalError, match="over no batch"):
        GradientScore(method="snip").result()
    with pytest.raises(LocalError, match="without examples"):
        GradientScore(method="snip").add(G1, W, 0)
    with pytest.raises(LocalError, match="no such score"):
        GradientScore(method="luck")
    assert "luck" not in FORMULAS


def test_wanda_scales_columns_also_of_kernels() -> None:
    assert wanda(W["w"], np.array([2.0, 10.0], np.float32)).tolist() == [[2, 20], [1, 0]]
    kernel = np.ones((3, 2, 5, 5), np.float32)
    assert wanda(kernel, np.array([2.0, 10.0], np.float32))[:, 1].max() == 10
    with pytest.raises(LocalError, match="norms do not fit"):
        wanda(W["w"], np.ones(3, np.float32))


def test_unit_scores_of_dense_and_convolutional_outputs() -> None:
    outputs = np.array([[1.0, 0.0, -2.0], [3.0, 0.0, 0.0]], np.float32)
    assert unit_activity(outputs).tolist() == [2, 0, 1]
    assert unit_nonzero(outputs).tolist() == [1, 0, 0.5]
    maps = np.zeros((2, 3, 4, 4), np.float32)
    maps[:, 1] = 1
    assert unit_nonzero(maps).tolist() == [0, 1, 0]
    assert over_rows(np.array([2.0, 0.0], np.float32), W["w"]).tolist() == [[2, 4], [0, 0]]
    with pytest.raises(LocalError, match="unit scores do not fit"):
        over_rows(np.ones(3, np.float32), W["w"])
