"""One version of the model, several masks: which part of it clients of a lower level hold.

A level is a density that some clients share; its mask lies within the run's. What such a client holds are the values
of the version on that mask, to the bit, and nothing else. Each level's mask has a mask version of its own, so that
(shape, model, mask) says what a client holds at any level, and neither clients nor receipts nor residuals know levels.

Where clients readjust masks of their own, each is a level to itself for a round, named by the client's number; the
run's mask is all of theirs together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Limits, decode_mask_set, encode_mask_set
from fedprune.mask import Mask
from fedprune.tensor import Schema

Arrays = Mapping[str, NDArray[Any]]
# density, or a client's number -> mask, all within the run's; of densities each within the next denser one.
Levels = Mapping[float, Mask]


def pack_levels(levels: Levels) -> dict[str, NDArray[np.uint8]]:
    """The masks as frames, by "density/version"."""
    return {
        f"{density!r}/{mask.version}": np.frombuffer(encode_mask_set(mask), np.uint8)
        for density, mask in levels.items()
    }


def unpack_levels(packed: Arrays, schema: Schema) -> dict[float, Mask]:
    """What `pack_levels` put together, densest first."""
    levels = {}
    named = {name.partition("/"): frame for name, frame in packed.items()}
    for (density, _, version), frame in sorted(named.items(), key=lambda item: -float(item[0][0])):
        levels[float(density)] = decode_mask_set(
            memoryview(frame.tobytes()), schema=schema, version=int(version), base=None, limits=Limits.of_mask(schema)
        )
    return levels


def newest_mask(mask: Mask, levels: Levels) -> int:
    """The highest mask version in use: the next one follows it."""
    return max(mask.version, *(level.version for level in levels.values())) if levels else mask.version


def on_mask(arrays: Arrays, mask: Mask) -> dict[str, NDArray[Any]]:
    """What a holder of `mask` has of these arrays: copies of its tensors, zero off the mask."""
    held = {name: np.array(array) if name in mask.alive else array for name, array in arrays.items()}
    mask.apply({name: held[name] for name in mask.alive})
    return held


def is_known(arrays: Arrays, held: Mask, wanted: Mask) -> bool:
    """Whether a holder of `held` needs no values to hold `wanted`: what is alive there alone is zero."""
    return not any(bool((arrays[name][bits & ~held.alive[name]] != 0).any()) for name, bits in wanted.alive.items())
