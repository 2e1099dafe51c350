"""When a weight, a unit or a layer went, told from the masks of a run.

The masks are kept anyway; nothing has to be written down twice to answer "why is unit 17 gone": the version in which
it went leads to the step's explanation, and that to score, threshold and what accuracy did next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning.floors import units


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """In mask `version`, what was asked about went from `before` to `after` alive weights."""

    version: int
    before: int
    after: int


def changes(
    masks: Sequence[Mask], name: str, *, row: int | None = None, column: int | None = None
) -> tuple[Change, ...]:
    """Every change of the alive weights of layer `name`, or of one of its rows (output units) or columns (input
    units), or of the weight where both meet (a whole kernel of a convolution). `masks` in order of version.

    A rollback shows as weights that come back. Raises `LocalError` where there is no such layer or unit."""
    if not masks or name not in masks[0].alive:
        known = list(masks[0].alive) if masks else "masks"
        raise LocalError("no prunable layer of that name", seen=name, expected=known)
    rows, columns, _ = units(masks[0].schema[name].shape)
    for what, index, count in (("row", row, rows), ("column", column, columns)):
        if index is not None and not 0 <= index < count:
            raise LocalError(f"{name!r} has no such {what}", seen=index, expected=f"0 to {count - 1}")
    counts = [_count(mask, name, row, column) for mask in masks]
    told = zip(masks[1:], pairwise(counts), strict=True)
    return tuple(
        Change(version=mask.version, before=before, after=after) for mask, (before, after) in told if before != after
    )


def _count(mask: Mask, name: str, row: int | None, column: int | None) -> int:
    bits = mask.alive[name].reshape(units(mask.schema[name].shape))
    rows = slice(None) if row is None else slice(row, row + 1)
    columns = slice(None) if column is None else slice(column, column + 1)
    return int(np.count_nonzero(bits[rows, columns]))
