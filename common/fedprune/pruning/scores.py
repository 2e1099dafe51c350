"""How important a weight is, where the weights alone can tell.

Every score says "keep the largest". Scores that need data are computed by clients and arrive here as arrays like
any other. All are float32: a rank needs no more, and ties are broken by position.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.pruning.floors import Scores
from fedprune.tensor import TensorSpec


def values(spec: TensorSpec, array: NDArray[np.generic]) -> NDArray[np.float32]:
    """The tensor's values as float32, of its shape; bfloat16 bit patterns are widened.

    Raises `LocalError` where the shape differs or a value is not finite: a rank over NaN has no meaning."""
    if array.shape != spec.shape:
        raise LocalError(f"weights of {spec.name!r} do not fit", seen=list(array.shape), expected=list(spec.shape))
    if spec.dtype == "bfloat16":
        floats = (array.astype("<u4") << 16).view("<f4")
    else:
        with np.errstate(over="ignore"):
            floats = array.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        raise LocalError(
            f"{spec.name!r} has values that are not finite",
            expected="finite float32",
            next_step="Lower training.learning_rate, or start from the last good model",
        )
    return floats


def magnitude(spec: TensorSpec, array: NDArray[np.generic]) -> Scores:
    """|w|, of the tensor's shape (Han et al. 2015)."""
    return np.abs(values(spec, array))
