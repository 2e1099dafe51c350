"""Places that gather in some rows and some columns, as those of updates do.

A gradient is a sum of outer products: where rows and columns stand out, the density of a cell is about the product of
theirs. So each line gets a class, the logarithm of its density, and cells whose classes add up to the same are laid
together: within such a group places are nearly random, and each group is coded at its own density. On updates of trained
nets that takes 5 to 20 % off what gaps cost (docs/codec-bench.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy, parts
from fedprune.codec.base import Bytes, Cursor, Part, Shape
from fedprune.codec.places import Places
from fedprune.errors import DecodeError
from fedprune.mask import Indices

CLASSES = 16
MIDDLE = 7  # the class of a line of mean density
MANY_PLACES = 1 << 12  # from here on a class is an octave, below it two: fewer groups
SAMPLE_PLACES = 1 << 15
MIN_PLACES = 1 << 7
GATHERED = 1.25  # variance of a line's places over that of random ones

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lines:
    """The lines of one axis: `classes` [lines], how many each class has [CLASSES], the `rank` of a line in its class."""

    classes: Indices
    sizes: Counts
    rank: Indices
    order: Indices  # lines, class by class
    starts: Counts

    @classmethod
    def of(cls, classes: Bytes) -> _Lines:
        wide = classes.astype(np.intp)
        sizes = np.bincount(wide, minlength=CLASSES)
        starts = np.cumsum(sizes) - sizes
        order = np.argsort(wide, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(order.size)
        return cls(classes=wide, sizes=sizes, rank=rank - starts[wide], order=order, starts=starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """The groups of all tensors: `starts[t, a, b]` is where the cells of tensor t with row class a and column class b
    begin in group a + b, and `sizes[g]` is how many cells a group has."""

    lines: list[tuple[_Lines, _Lines]]
    starts: Counts
    sizes: Counts

    @classmethod
    def of(cls, lines: list[tuple[_Lines, _Lines]]) -> _Cells:
        starts, sizes = np.zeros((len(lines), CLASSES, CLASSES), np.int64), np.zeros(2 * CLASSES - 1, np.int64)
        for tensor, (rows, columns) in enumerate(lines):
            for row_class in np.flatnonzero(rows.sizes):
                # one row class meets each group once
                starts[tensor, row_class] = sizes[row_class : row_class + CLASSES]
                sizes[row_class : row_class + CLASSES] += rows.sizes[row_class] * columns.sizes
        return cls(lines=lines, starts=starts, sizes=sizes)


class Grid:
    """A stream of row classes, a stream of column classes, then a part for every group that has cells."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        tensors = list(_by_tensor(places.indices, shapes))
        density = places.count / max(places.size, 1)
        classes = [_classes(at, shape, density, places.count) for at, shape in tensors]
        rows, columns = (np.concatenate([pair[axis] for pair in classes]) for axis in (0, 1))
        cells = _Cells.of([(_Lines.of(row), _Lines.of(column)) for row, column in classes])
        keys = [_keys(at, shape, cells, tensor) for tensor, (at, shape) in enumerate(tensors)]
        ends = np.cumsum(cells.sizes)
        every = np.sort(np.concatenate(keys))
        bodies = np.split(every, np.searchsorted(every, ends[:-1]))
        coded = entropy.pack(rows) + entropy.pack(columns)
        for body, size, end in zip(bodies, cells.sizes, ends, strict=True):
            coded += parts.write(Places.of_indices(body - (end - size), int(size))) if size else []
        return coded

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        cells = _Cells.of(_read_lines(cursor, shapes))
        found = [parts.read(cursor, int(size)).indices if size else np.empty(0, np.intp) for size in cells.sizes]
        if sum(at.size for at in found) != count:
            raise DecodeError("another number of positions than announced", expected=count)
        indices = [np.empty(0, np.intp)]
        for group, at in enumerate(found):
            indices += _from_group(at, group, cells, shapes)
        size = sum(shape.size for shape in shapes)
        return Places.of_indices(np.sort(np.concatenate(indices)), size)


def is_gathered(places: Places, shapes: Sequence[Shape]) -> bool:
    """Whether some rows or columns hold clearly more places than random ones would; asked of a sample."""
    if places.count < MIN_PLACES or not any(shape.rows > 1 and shape.width > 1 for shape in shapes):
        return False
    sample = places.indices[:: max(1, places.count // SAMPLE_PLACES)]
    spread, expected = 0.0, 0.0
    for at, shape in _by_tensor(sample, shapes):
        if at.size:
            for line, lines in zip(np.divmod(at, shape.width), (shape.rows, shape.width), strict=True):
                counts = np.bincount(line, minlength=lines)
                spread += float(np.square(counts - counts.mean()).sum())
                expected += at.size
    return spread > GATHERED * expected


def _by_tensor(indices: Indices, shapes: Sequence[Shape]) -> Iterator[tuple[Indices, Shape]]:
    ends = np.cumsum([shape.size for shape in shapes])
    for own, shape, end in zip(np.split(indices, np.searchsorted(indices, ends[:-1])), shapes, ends, strict=True):
        yield own - (end - shape.size), shape


def _classes(at: Indices, shape: Shape, density: float, count: int) -> tuple[Bytes, Bytes]:
    """Of each row against all tensors, of each column against its own."""
    rows, columns = np.divmod(at, max(shape.width, 1))
    own = at.size / max(shape.size, 1)
    octaves = 1.0 if count >= MANY_PLACES else 2.0
    return (
        _class_of(np.bincount(rows, minlength=shape.rows), density * shape.width, octaves),
        _class_of(np.bincount(columns, minlength=shape.width), own * shape.rows, octaves),
    )


def _class_of(counts: Counts, expected: float, octaves: float) -> Bytes:
    above = np.log2((counts + 0.4) / (expected + 0.4)) / octaves  # 0.4: a line without places is not of density 0
    classes: Bytes = np.clip(np.rint(above) + MIDDLE, 0, CLASSES - 1).astype(np.uint8)
    return classes


def _keys(at: Indices, shape: Shape, cells: _Cells, tensor: int) -> Indices:
    """The number of each place when all groups are laid end to end."""
    i, j = np.divmod(at, max(shape.width, 1))
    rows, columns = cells.lines[tensor]
    a, b = rows.classes[i], columns.classes[j]
    within = cells.starts[tensor, a, b] + rows.rank[i] * columns.sizes[b] + columns.rank[j]
    return np.asarray(within + (np.cumsum(cells.sizes) - cells.sizes)[a + b], np.intp)


def _read_lines(cursor: Cursor, shapes: Sequence[Shape]) -> list[tuple[_Lines, _Lines]]:
    rows = entropy.unpack(cursor, sum(shape.rows for shape in shapes))
    columns = entropy.unpack(cursor, sum(shape.width for shape in shapes))
    for classes in (rows, columns):
        if classes.size and int(classes.max()) >= CLASSES:
            raise DecodeError("no such class of a line", seen=int(classes.max()), expected=f"below {CLASSES}")
    row_ends, column_ends = (np.cumsum(sizes)[:-1] for sizes in zip(*((s.rows, s.width) for s in shapes), strict=True))
    pairs = zip(np.split(rows, row_ends), np.split(columns, column_ends), strict=True)
    return [(_Lines.of(row), _Lines.of(column)) for row, column in pairs]


def _from_group(at: Indices, group: int, cells: _Cells, shapes: Sequence[Shape]) -> Iterator[Indices]:
    """The places of a group, block by block: cells of one tensor, one row class and one column class."""
    first = 0
    for tensor, (shape, (rows, columns)) in enumerate(zip(shapes, cells.lines, strict=True)):
        for a in range(max(0, group - CLASSES + 1), min(group, CLASSES - 1) + 1):
            b = group - a
            start, size = cells.starts[tensor, a, b], rows.sizes[a] * columns.sizes[b]
            if size:
                last = first + int(np.searchsorted(at[first:], start + size))
                i, j = np.divmod(at[first:last] - start, columns.sizes[b])
                row, column = rows.order[rows.starts[a] + i], columns.order[columns.starts[b] + j]
                yield row * shape.width + column + sum(s.size for s in shapes[:tensor])
                first = last
