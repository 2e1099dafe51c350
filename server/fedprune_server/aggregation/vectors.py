"""Robust rules that look at whole updates: multi-Krum (Blanchard et al., 2017) and norm clipping.

Both need a first pass over the weights of all updates. Places that a client's mask does not have count as unmoved.
Sums of squares run over the same blocks in the same order for every update and every pair, so that neither depends
on who arrived first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt

import numpy as np

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Schema
from fedprune_server.aggregation.aggregators import Choice, Combined, Rule
from fedprune_server.aggregation.columns import blocks, whole
from fedprune_server.aggregation.fixed import Deltas, Floats, Scale
from fedprune_server.aggregation.inputs import Arrays, FoldInput
from fedprune_server.aggregation.spaces import Space
from fedprune_server.aggregation.walk import weight_deltas


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiKrum:
    """Count only the updates that are most like their neighbours, each with the same weight.

    `attackers` is the share of updates that may be hostile, f = ceil(share n). An update's score is the sum of its
    `unlikeness` to its n - f - 2 nearest neighbours, where Blanchard et al. take squared distances; the n - f best are
    handed to `inner`. Equal scores are settled by party name. The promise needs n >= 2 f + 3; a smaller round stands
    fewer attackers, and says so.
    """

    inner: Rule
    attackers: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.attackers < 0.5:
            raise LocalError("cannot stand that share of attackers", seen=self.attackers, expected="between 0 and 0.5")

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Choice:
        """The n - f updates with the best scores."""
        wanted = ceil(self.attackers * len(updates))
        hostile = min(wanted, max(len(updates) - 3, 0) // 2)
        unlike = unlikeness(schema, base, mask, updates)
        nearest = np.sort(unlike, axis=1)[:, 1 : max(len(updates) - hostile - 1, 2)]
        scores = [sum(row.tolist()) for row in nearest]
        order = sorted(range(len(updates)), key=lambda i: (scores[i], updates[i].party))
        chosen = [replace(updates[i], examples=1) for i in sorted(order[: len(updates) - hostile])]
        few = f"{len(updates)} updates are too few for multi-Krum to stand {wanted} attackers: it stands {hostile}"
        return self.inner.choose(schema, base, mask, chosen).warned(few if hostile < wanted else "")

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """As the inner rule does."""
        return self.inner.combine(space, deltas)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormClip:
    """Shorten updates that are longer than `norm` to it; 0: than the median length of the round."""

    inner: Rule
    norm: float = 0.0

    def __post_init__(self) -> None:
        if not self.norm >= 0:
            raise LocalError("a norm is not negative", seen=self.norm)

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Choice:
        """Everyone counts, with a factor of at most 1."""
        lengths = norms(schema, base, mask, updates)
        most = self.norm or float(np.median(lengths))
        factors = [min(1.0, most / length) if length else 1.0 for length in lengths]
        shortened = [replace(update, factor=f) for update, f in zip(updates, factors, strict=True)]
        return self.inner.choose(schema, base, mask, shortened)

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """As the inner rule does."""
        return self.inner.combine(space, deltas)


def norms(schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> list[float]:
    """The Euclidean length of each update's differences."""
    squares = [0.0] * len(updates)
    for space, deltas in weight_deltas(schema, base, mask, updates):
        scale = Scale.of(space.spec, space.base)
        for number, one in enumerate(deltas):
            one.check(scale, space.spec.name)
            for _, block in one.blocks():
                squares[number] += float(np.add.reduce(np.square(block)))
    return [sqrt(square) for square in squares]


def nearest(unlike: Floats, parties: Sequence[str], hostile: int) -> list[tuple[int, ...]]:
    """For each update the numbers of the n - `hostile` that are most like it, itself among them, by `unlikeness` [n, n].
    Equals are settled by party name; the numbers stand in the order of the names."""
    groups = []
    for one, row in enumerate(unlike.tolist()):
        order = sorted(range(len(row)), key=lambda i: (i != one, row[i], parties[i]))
        groups.append(tuple(sorted(order[: len(row) - hostile], key=parties.__getitem__)))
    return groups


def unlikeness(schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Floats:
    """Between every two updates [n, n]: their squared distance over the product of their lengths, r + 1/r - 2 cos for
    lengths whose ratio is r. An update that moves nothing is like no other.

    Plain distance takes what is short for close to everything: half the mean of the honest, backwards, lies nearer to
    each of them than they do to each other (inner product manipulation: Xie et al., 2020).
    """
    products = inner_products(schema, base, mask, updates)
    squares = np.diag(products)
    lengths = np.sqrt(np.outer(squares, squares))
    apart = np.maximum(squares[:, None] + squares - 2.0 * products, 0.0)
    unlike = np.divide(apart, lengths, out=np.full_like(apart, np.inf), where=lengths > 0)
    np.fill_diagonal(unlike, 0.0)
    return unlike


def inner_products(schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Floats:
    """Between every two updates, and of each with itself [n, n]."""
    sums = np.zeros((len(updates), len(updates)))
    for space, stream in weight_deltas(schema, base, mask, updates):
        scale, held = Scale.of(space.spec, space.base), []
        for one in stream:
            one.check(scale, space.spec.name)
            held.append(whole(one, space.size))
        for _, matrix in blocks(held, space.size):
            vectors = np.nan_to_num(np.ascontiguousarray(matrix.T), copy=False, nan=0.0)
            for i in range(len(held)):
                products = np.add.reduce(vectors[i:] * vectors[i], axis=1)
                sums[i, i:] += products
                sums[i + 1 :, i] += products[1:]
    return sums
