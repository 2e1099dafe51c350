"""What every part of the codec agrees on: the words of the wire, the sender's plan, how bytes are read.

The numbers of the enums below are wire numbers: within a version of the format they have one meaning, which is written
down in docs/format.md.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import DecodeError, LocalError
from fedprune.mask import Indices
from fedprune.tensor import Role, TensorSpec

CODEC_VERSION = 3
Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]
Part = bytes | memoryview

MAX_VARINT_BYTES = 9
_BYTES = [bytes((byte,)) for byte in range(256)]


class Content(IntEnum):
    """What a frame holds: a mask, the values of a model, or the difference of two models."""

    MASK = 1
    WEIGHTS = 2
    DELTA = 3


class Positions(IntEnum):
    """How the places of the values are said."""

    ALL = 0
    REF = 1
    BITMAP = 2
    CSR = 3
    ROWS_COLUMNS = 4
    GAP = 5
    RICE = 6
    XOR = 7
    PARTS = 8
    GRID = 9


class Values(IntEnum):
    """How the values themselves are said. Masks have none."""

    NONE = 0
    RAW = 1
    PLANES = 2
    DIFFERENCE = 3
    FLOAT16 = 4
    BFLOAT16 = 5
    INT8 = 6
    INT4 = 7
    TERNARY = 8


LOSSY = {
    "fp16": Values.FLOAT16,
    "bf16": Values.BFLOAT16,
    "int8": Values.INT8,
    "int4": Values.INT4,
    "ternary": Values.TERNARY,
}
# Every bit arrives: coded, or as it is, which is fastest.
EXACT = ("lossless", "raw")
PLAN_VALUES = (*EXACT, *LOSSY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the sender is allowed to do to the values.

    `values` names the coding of the float32 weights, `vectors` that of the ones that are no matrices (biases, norms;
    None: the same); everything else travels lossless. "raw" spends no time on coding, for links faster than that;
    `sparse` sends only what is not zero, inside the mask too.
    Tensors whose name matches a pattern of `exact` stay lossless. `rng` rounds stochastically (unbiased); without it,
    rounding is to nearest. `positions` and `link_bytes_per_s` steer the chooser: force one coding, or weigh bytes
    against time on a link of that rate (the default makes bytes dear: what is sent once is often sent to many).
    """

    values: str = "lossless"
    vectors: str | None = None
    sparse: bool = False
    rng: np.random.Generator | None = None
    exact: tuple[str, ...] = ()
    positions: Positions | None = None
    link_bytes_per_s: float = 1e5

    def __post_init__(self) -> None:
        for values in (self.values, self.vectors or self.values):
            if values not in PLAN_VALUES:
                raise LocalError("no such value coding", seen=values, expected=" | ".join(PLAN_VALUES))
        if not self.link_bytes_per_s > 0:
            raise LocalError("a link has a rate above 0", seen=self.link_bytes_per_s)

    @classmethod
    def of(cls, plan: str | Plan) -> Plan:
        """A plan from its short form: the name of the value coding."""
        return cls(values=plan) if isinstance(plan, str) else plan

    def coding_of(self, spec: TensorSpec) -> str:
        """The value coding of this tensor: what the plan asks of a float32 weight, unless it is named as exact."""
        if spec.dtype != "float32" or spec.role not in (Role.PRUNABLE, Role.FREE):
            return "lossless"
        if any(fnmatch.fnmatchcase(spec.name, pattern) for pattern in self.exact):
            return "lossless"
        return self.vectors if self.vectors is not None and len(spec.shape) < 2 else self.values


class Packed(NamedTuple):
    """What travelled of one tensor: `values` [nnz] in the tensor's own dtype, `indices` [nnz] flat and ascending.

    `indices` is None when everything travelled that can: all alive weights under the mask, or the whole tensor.
    """

    indices: Indices | None
    values: Array


class Shape(NamedTuple):
    """One tensor's part of an index space: [rows, columns, depth], what follows the second axis laid together."""

    rows: int
    columns: int
    depth: int = 1

    @classmethod
    def of(cls, spec: TensorSpec) -> Shape:
        """The whole tensor; with fewer than two axes it is one row."""
        if len(spec.shape) < 2:
            return cls(1, spec.size)
        return cls(spec.shape[0], spec.shape[1], prod(spec.shape[2:]))

    @property
    def size(self) -> int:
        """Number of places."""
        return prod(self)

    @property
    def width(self) -> int:
        """Columns of the matrix [rows, rest]."""
        return self.columns * self.depth


def space_size(shapes: Sequence[Shape]) -> int:
    """Number of places in the space that `shapes` make up end to end."""
    return sum(shape.size for shape in shapes)


def length(parts: Iterable[Part]) -> int:
    """Bytes of all parts together."""
    return sum(map(len, parts))


class Cursor:
    """Reads a frame from the front; whatever is not there is a `DecodeError`."""

    __slots__ = ("_at", "_data", "_size")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._size = len(data)
        self._at = 0

    @property
    def at(self) -> int:
        """Bytes read so far."""
        return self._at

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self._size - self._at

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        start = self._at
        end = start + count
        if not start <= end <= self._size:
            raise DecodeError("bytes end too early", seen=f"{self.left} bytes left", expected=count)
        self._at = end
        return self._data[start:end]

    def byte(self) -> int:
        """The next byte."""
        at = self._at
        if at == self._size:
            raise DecodeError("bytes end too early", seen="0 bytes left", expected=1)
        self._at = at + 1
        return self._data[at]

    def varint(self) -> int:
        """An unsigned LEB128 number below 2^63, in its shortest form."""
        ahead = self._data[self._at : self._at + MAX_VARINT_BYTES]
        value = 0
        for step, byte in enumerate(ahead):
            value |= (byte & 0x7F) << (7 * step)
            if byte < 0x80:
                if byte == 0 and step:
                    raise DecodeError("a number is padded with zeros")
                self._at += step + 1
                return value
        if len(ahead) < MAX_VARINT_BYTES:
            raise DecodeError("bytes end too early", seen=f"{self.left} bytes left", expected="a number")
        raise DecodeError("a number is too long", expected=f"at most {MAX_VARINT_BYTES} bytes")

    def varints(self, count: int) -> tuple[int, ...]:
        """The next `count` numbers."""
        ahead = self._data[self._at : self._at + count]
        if len(ahead) == count and max(ahead, default=0) < 0x80:
            self._at += count
            return tuple(ahead)
        return tuple(self.varint() for _ in range(count))

    def since(self, start: int) -> memoryview:
        """What was read from byte `start` on."""
        return self._data[start : self._at]

    def done(self) -> None:
        """Raise when something is left."""
        if self.left:
            raise DecodeError("bytes left over at the end", seen=self.left, expected=0)


def varint(value: int) -> bytes:
    """`value` as unsigned LEB128, shortest form."""
    out = b""
    while value >= 0x80:
        out += _BYTES[value & 0x7F | 0x80]
        value >>= 7
    return out + _BYTES[value]
