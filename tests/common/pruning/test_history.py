"""When something went, told from the masks alone."""

import numpy as np
import pytest

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning.history import Change, changes
from fedprune.tensor import Schema, TensorSpec

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(3, 2)), TensorSpec(name="c", shape=(2, 2, 3, 3))))


def story() -> list[Mask]:
    """Row 1 of w dies in version 2, comes back in 4 (a rollback); a kernel of c loses three weights in 3."""
    masks = [Mask.full(SCHEMA, version=1)]
    for version in (2, 3, 4):
        alive = {n: np.ones(t.shape, np.bool_) for n, t in ((t.name, t) for t in SCHEMA)}
        if version < 4:
            alive["w"][1] = False
        if version > 2:
            alive["c"][0, 1, 0] = False
        masks.append(Mask(schema=SCHEMA, version=version, alive=alive))
    return masks


def test_layers_units_and_single_weights() -> None:
    masks = story()
    assert changes(masks, "w") == (Change(version=2, before=6, after=4), Change(version=4, before=4, after=6))
    assert changes(masks, "w", row=1)[0] == Change(version=2, before=2, after=0)
    assert changes(masks, "w", row=0) == ()
    assert changes(masks, "w", row=1, column=0)[0] == Change(version=2, before=1, after=0)
    assert changes(masks, "c", column=1) == (Change(version=3, before=18, after=15),)
    assert changes(masks, "c", row=0, column=1) == (Change(version=3, before=9, after=6),)


def test_questions_about_nothing_are_refused() -> None:
    with pytest.raises(LocalError, match="no prunable layer"):
        changes(story(), "v")
    with pytest.raises(LocalError, match="no prunable layer"):
        changes([], "w")
    with pytest.raises(LocalError, match="no such row"):
        changes(story(), "w", row=3)
    with pytest.raises(LocalError, match="no such column"):
        changes(story(), "w", column=-1)
