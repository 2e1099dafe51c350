"""What travelled gets to its place, whether or not the mask leaves anything out."""

from __future__ import annotations

import numpy as np
import pytest

from fedprune.applying import put
from fedprune.codec import Packed
from fedprune.mask import Mask
from fedprune.tensor import Schema, TensorSpec

SPEC = TensorSpec(name="w", shape=(3, 4))
SCHEMA = Schema(tensors=(SPEC,))
BEFORE = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


@pytest.mark.parametrize("add", [False, True])
def test_a_whole_tensor_needs_no_list_of_its_places(add: bool) -> None:
    mask, values, array = Mask.full(SCHEMA), np.linspace(-1, 1, 12, dtype=np.float32), BEFORE.copy()
    put(array, SPEC, Packed(values=values, indices=None), mask, add=add)
    expected = BEFORE + values.reshape(3, 4) if add else values.reshape(3, 4)
    assert array.tobytes() == expected.tobytes()
    assert not mask._indices


@pytest.mark.parametrize("add", [False, True])
def test_what_is_pruned_stays_as_it_is(add: bool) -> None:
    alive = np.arange(12).reshape(3, 4) % 3 == 0
    mask, values, array = Mask(schema=SCHEMA, version=1, alive={"w": alive}), np.ones(4, np.float32), BEFORE.copy()
    put(array, SPEC, Packed(values=values, indices=None), mask, add=add)
    assert array[~alive].tobytes() == BEFORE[~alive].tobytes()
    assert array[alive].tobytes() == (BEFORE[alive] + 1 if add else values).tobytes()
