"""How important a weight is, where the weights alone can tell.

Every score says "keep the largest". Scores that need data are accumulated by clients (`accumulate`) and combined here
by example weight. All are float32: a rank needs no more, and ties are broken by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Bits
from fedprune.pruning.floors import Scores
from fedprune.pruning.plan import METHODS
from fedprune.tensor import Schema, TensorSpec

# What only clients can compute: it needs their data.
FROM_CLIENTS = frozenset({"gradient", "snip", "taylor", "fisher", "movement", "activation", "apoz", "wanda"})
assert frozenset(METHODS) > FROM_CLIENTS


def values(spec: TensorSpec, array: NDArray[np.generic]) -> NDArray[np.float32]:
    """The tensor's values as float32, of its shape; bfloat16 bit patterns are widened.

    Raises `LocalError` where the shape differs or a value is not finite: a rank over NaN has no meaning."""
    if array.shape != spec.shape:
        raise LocalError(f"weights of {spec.name!r} do not fit", seen=list(array.shape), expected=list(spec.shape))
    floats: NDArray[np.float32]
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


def magnitudes(schema: Schema, weights: Mapping[str, NDArray[np.generic]]) -> dict[str, Scores]:
    """|w| of every prunable tensor (Han et al. 2015)."""
    return {t.name: np.abs(values(t, weights[t.name])) for t in schema.prunable}


def randoms(schema: Schema, rng: np.random.Generator) -> dict[str, Scores]:
    """Uniform scores: the control that any other score has to beat."""
    return {t.name: rng.random(t.shape, np.float32) for t in schema.prunable}


def lamp(magnitude: Scores, alive: Bits) -> Scores:
    """|w|^2 over the sum of |v|^2 of the layer's alive weights v no smaller than w; 0 where pruned.

    Ranked globally it spreads a budget over layers without a knob, and the largest weight of a layer always scores 1
    (Lee et al. 2021, equation 1). Of equal weights the one at the lower position counts as the larger."""
    squares = np.square(magnitude[alive], dtype=np.float64)
    order = np.argsort(-squares, kind="stable")
    # The sum up to and with w, from the largest down: what is no smaller than w.
    sums = np.cumsum(squares[order])
    line = np.zeros(squares.size, np.float32)
    line[order] = np.divide(squares[order], sums, out=np.zeros_like(sums), where=sums > 0)
    scores = np.zeros(magnitude.shape, np.float32)
    scores[alive] = line
    return scores


def within_rows(scores: Scores, alive: Bits) -> Scores:
    """Each score's rank within its own row, in (0, 1], 1 for the largest; 0 where pruned.

    A global rank over these takes the same share of every row: what Wanda asks for (Sun et al. 2024)."""
    flat = np.where(alive, scores, np.float32(-np.inf)).reshape(scores.shape[0], -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    places = np.empty(flat.shape, np.float32)
    width = flat.shape[1]
    np.put_along_axis(places, order, np.broadcast_to(1 - np.arange(width, dtype=np.float32) / width, flat.shape), 1)
    return np.where(alive, places.reshape(scores.shape), np.float32(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientScores:
    """The scores of one client, name -> array of the tensor's shape, and how many examples they saw."""

    client: int
    examples: int
    scores: Mapping[str, NDArray[np.generic]]

    def check(self, schema: Schema) -> None:
        """Raise `UpdateError`, naming the client, where names, shapes or values are not what was asked for."""
        party = f"client {self.client}"
        if self.examples < 1:
            raise UpdateError("scores without examples", party=party, seen=self.examples, expected="at least 1")
        wanted = {t.name: t.shape for t in schema.prunable}
        for name in wanted.keys() ^ self.scores.keys():
            raise UpdateError("scores of other tensors than asked for", party=party, seen=name, expected=list(wanted))
        for name, array in self.scores.items():
            if array.shape != wanted[name]:
                problem = f"scores of {name!r} have another shape"
                raise UpdateError(problem, party=party, seen=list(array.shape), expected=list(wanted[name]))
            if not np.isfinite(array.astype(np.float32, copy=False)).all():
                raise UpdateError(f"scores of {name!r} are not finite", party=party, expected="finite float32")


def combine(schema: Schema, parts: Sequence[ClientScores]) -> dict[str, Scores]:
    """The mean of the clients' scores, weighted by examples. Every part has passed `check`.

    Parts are added in the order of their clients, so the order of arrival does not matter."""
    if not parts:
        raise LocalError("no client sent scores", next_step="Choose a score without data, or wait for clients")
    ordered = sorted(parts, key=lambda part: part.client)
    total = sum(part.examples for part in ordered)
    return {
        t.name: np.asarray(
            sum(part.scores[t.name].astype(np.float64) * (part.examples / total) for part in ordered), np.float32
        )
        for t in schema.prunable
    }
