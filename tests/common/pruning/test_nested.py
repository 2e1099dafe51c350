"""A mask for each client: one within the other, as dense as its deadline allows."""

from itertools import pairwise

import numpy as np
import pytest

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import Floors, keep_count
from fedprune.pruning.nested import Speed, level, lifted, nested_masks
from fedprune.tensor import Schema, TensorSpec

SCHEMA = Schema(tensors=(TensorSpec(name="a", shape=(40, 50)), TensorSpec(name="b", shape=(30, 40))))
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0)


def test_masks_are_nested_and_exact() -> None:
    rng = np.random.default_rng(0)
    scores = {t.name: rng.random(t.shape, np.float32) for t in SCHEMA}
    masks = nested_masks(scores, Mask.full(SCHEMA), LEVELS, Floors(), 4)
    # At full density a client holds the run's own mask.
    assert [(density, mask.version) for density, mask in masks.items()] == [(0.5, 4), (0.2, 5), (0.1, 6), (0.05, 7)]
    for density, mask in masks.items():
        assert mask.alive_count == keep_count(density, 3200)
    for small, large in pairwise(LEVELS[:-1]):
        assert masks[small].within(masks[large])
    within = masks[0.2]
    assert list(nested_masks(scores, within, LEVELS, Floors(), 8)) == [0.1, 0.05]
    with pytest.raises(LocalError, match="client's density is out of range"):
        nested_masks(scores, within, (0.0,), Floors(), 5)


def test_the_level_is_the_densest_that_meets_the_deadline() -> None:
    speed = Speed(work_s=4.0, bytes_per_s=1000.0)
    # 4 s of work, 1 s of what always travels, 10 s times density.
    for deadline_s, expected in [(6.0, 0.1), (7.0, 0.2), (15.0, 1.0), (14.9, 0.5), (1.0, 0.05)]:
        assert level(speed, LEVELS, deadline_s, dense_bytes=10_000, fixed_bytes=1000) == expected


def test_speed_is_smoothed_as_time() -> None:
    speed = Speed(work_s=4.0, bytes_per_s=100.0).with_round(Speed(work_s=8.0, bytes_per_s=50.0), weight=0.5)
    assert speed.work_s == 6.0
    assert speed.bytes_per_s == pytest.approx(1 / 0.015)
    with pytest.raises(LocalError, match="no such speed"):
        Speed(work_s=1.0, bytes_per_s=0.0)


def test_everyone_is_lifted_in_turn() -> None:
    turns = {c: [r for r in range(8) if lifted(c, r, 0.1, LEVELS, 4) != 0.1] for c in range(4)}
    assert turns == {0: [0, 4], 1: [3, 7], 2: [2, 6], 3: [1, 5]}
    assert lifted(0, 0, 0.1, LEVELS, 4) == 0.2
    assert lifted(0, 0, 1.0, LEVELS, 4) == 1.0
    assert lifted(0, 0, 0.1, LEVELS, 0) == 0.1
