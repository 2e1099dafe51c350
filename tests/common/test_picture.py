"""The picture of a mask: read back with a decoder that is not ours, it shows the alive share behind each pixel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fedprune.picture import densities, mask_png


def opacity(png: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The alpha channel [rows, columns], as pillow reads it."""
    found = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))[..., 3]
    return found.reshape(found.shape[0], found.shape[1])


def test_a_small_mask_is_its_own_picture() -> None:
    alive = np.array([[True, False, True], [False, False, True]])
    assert (opacity(mask_png(alive)) == np.where(alive, 255, 0)).all()


@pytest.mark.parametrize(("shape", "seen"), [((5,), (1, 5)), ((4, 3, 2, 2), (4, 12)), ((1, 7), (1, 7))])
def test_a_tensor_is_seen_as_rows_of_the_rest(shape: tuple[int, ...], seen: tuple[int, int]) -> None:
    assert opacity(mask_png(np.ones(shape, np.bool_))).shape == seen


def test_a_large_mask_is_averaged() -> None:
    alive = np.zeros((6, 4), np.bool_)
    alive[:3, :2] = True
    assert densities(alive, largest_side=2).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert densities(alive, largest_side=4)[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]


def test_no_alive_weight_is_lost_among_dead_ones() -> None:
    alive = np.zeros((2000, 1), np.bool_)
    alive[7] = True
    levels = opacity(mask_png(alive, largest_side=2))
    assert levels[0, 0] > 0
    assert levels[1, 0] == 0
