"""All updates of one tensor as a matrix, a block of places at a time: for rules that look at single vectors.

Such a rule holds one tensor of every update at once; that is its price. Whatever it computes from a row of the
matrix must not depend on the order of the columns: `in_order` sorts each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedprune_server.aggregation.fixed import Deltas, Floats

# Rows of a block; with 32 updates it is one megabyte.
ROWS = 1 << 12


def whole(deltas: Deltas, size: int) -> Deltas:
    """The same differences at every place of the space [size]: zero where none was sent, NaN where it is not held."""
    if deltas.positions is None:
        return deltas
    values = np.full(size, np.nan if deltas.holders is not None else 0.0)
    if deltas.holders is not None:
        values[deltas.holders] = 0.0
    for part, block in deltas.blocks():
        values[deltas.positions[part]] = block
    return Deltas(values=values, examples=deltas.examples, party=deltas.party, nearest=deltas.nearest)


def blocks(updates: Sequence[Deltas], size: int) -> Iterator[tuple[slice, Floats]]:
    """(places, matrix [places, updates]) block by block, of updates that are `whole`."""
    for start in range(0, size, ROWS):
        part = slice(start, min(start + ROWS, size))
        matrix = np.empty((part.stop - start, len(updates)))
        for column, deltas in enumerate(updates):
            matrix[:, column] = deltas.at(part)
        yield part, matrix


def mixed(matrix: Floats, groups: Sequence[tuple[int, ...]]) -> Floats:
    """Each column [places] as the mean of a group of columns, of those that hold a place; NaN where it does not itself.
    The groups decide the order of the sums."""
    held = ~np.isnan(matrix)
    known = np.where(held, matrix, 0.0)
    means = np.empty_like(matrix)
    for column, group in enumerate(groups):
        total, holders = np.zeros(len(matrix)), np.zeros(len(matrix))
        for one in group:
            total += known[:, one]
            holders += held[:, one]
        means[:, column] = total / np.maximum(holders, 1.0)
    means[~held] = np.nan
    return means


def in_order(matrix: Floats) -> Floats:
    """Each row ascending, what is not held (NaN) last, and one zero only."""
    matrix += 0.0
    matrix.sort(axis=1)
    return matrix
