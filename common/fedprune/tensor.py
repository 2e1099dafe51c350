"""What a model is, without its values: names, shapes, dtypes and roles.

Both ends hold the same `Schema`; it is compared once, at join, so that no payload ever carries names or shapes
again. Roles are decided by the coordinator from the run file: they say which tensors can be pruned, which only
travel, and which are no weights at all.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod

import numpy as np

from fedprune.errors import LocalError, SignatureError

# bfloat16 has no numpy dtype: its bit patterns travel and are held as uint16.
NUMPY_DTYPES: dict[str, str] = {
    "float32": "<f4",
    "float64": "<f8",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint8": "|u1",
    "bool": "|b1",
}
_DTYPES = {name: np.dtype(code) for name, code in NUMPY_DTYPES.items()}
FLOAT_DTYPES = frozenset({"float32", "float64", "float16", "bfloat16"})
MAX_RANK = 16
MAX_NAME = 512


class Role(Enum):
    """How a tensor takes part. `prunable` may lose weights; `free` (biases, norms, protected) travels whole;
    `buffer` is a running statistic; `counter` an integer that is copied, not averaged."""

    PRUNABLE = "prunable"
    FREE = "free"
    BUFFER = "buffer"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor: `shape` as in torch (0-d is `()`), `dtype` one of `NUMPY_DTYPES`."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    role: Role = Role.PRUNABLE

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_NAME:
            raise LocalError("tensor name is empty or too long", seen=len(self.name), expected=f"1 to {MAX_NAME}")
        if self.dtype not in NUMPY_DTYPES:
            raise LocalError(
                f"tensor {self.name!r} has a dtype that cannot travel",
                seen=self.dtype,
                expected=" | ".join(NUMPY_DTYPES),
            )
        if len(self.shape) > MAX_RANK or any(d < 0 for d in self.shape):
            raise LocalError(f"tensor {self.name!r} has an impossible shape", seen=self.shape)
        if self.role is Role.COUNTER and self.dtype in FLOAT_DTYPES:
            raise LocalError(f"tensor {self.name!r} is a counter but not an integer", seen=self.dtype)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.size * self.numpy_dtype.itemsize

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """Little-endian numpy dtype the values are held in."""
        return _DTYPES[self.dtype]

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(rows, columns) of the CSR view: [out, rest]; 0-d and 1-d tensors are one row."""
        if len(self.shape) < 2:
            return 1, self.size
        return self.shape[0], prod(self.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Schema:
    """All tensors of a model that travel, in state-dict order."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        names = [t.name for t in self.tensors]
        if len(set(names)) != len(names):
            twice, _ = Counter(names).most_common(1)[0]
            raise LocalError(f"two tensors are called {twice!r}")

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, name: str) -> TensorSpec:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @cached_property
    def _by_name(self) -> dict[str, TensorSpec]:
        return {t.name: t for t in self.tensors}

    def of(self, *roles: Role) -> tuple[TensorSpec, ...]:
        """The tensors with one of these roles, in order."""
        return tuple(t for t in self.tensors if t.role in roles)

    @property
    def prunable(self) -> tuple[TensorSpec, ...]:
        """The tensors that a mask covers."""
        return self.of(Role.PRUNABLE)

    @property
    def parameters(self) -> int:
        """Number of weights: prunable and free, no buffers and counters."""
        return sum(t.size for t in self.of(Role.PRUNABLE, Role.FREE))

    @property
    def dense_bytes(self) -> int:
        """Bytes of the `raw` dense baseline: every floating tensor at 4 bytes an element, counters as they are."""
        return sum(4 * t.size if t.dtype in FLOAT_DTYPES else t.nbytes for t in self.tensors)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of names, shapes, dtypes and roles."""
        text = "\n".join(f"{t.name}\t{t.shape}\t{t.dtype}\t{t.role.value}" for t in self.tensors)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_roles(self, roles: Sequence[Role]) -> Schema:
        """The same tensors under other roles, one each, in order."""
        pairs = zip(self.tensors, roles, strict=True)
        return Schema(tensors=tuple(TensorSpec(name=t.name, shape=t.shape, dtype=t.dtype, role=r) for t, r in pairs))

    def check_same_model(self, other: Schema, *, party: str) -> None:
        """Raise `SignatureError` with the first name, shape or dtype in which `other` (the party's) differs."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=False):
            if (mine.name, mine.shape, mine.dtype) != (theirs.name, theirs.shape, theirs.dtype):
                raise SignatureError(
                    f"model differs at tensor {mine.name!r}",
                    party=party,
                    seen=f"{theirs.name!r} {list(theirs.shape)} {theirs.dtype}",
                    expected=f"{mine.name!r} {list(mine.shape)} {mine.dtype}",
                    next_step="Use the same task file and torch version on both sides",
                )
        if len(self) != len(other):
            longer = self if len(self) > len(other) else other
            raise SignatureError(
                f"model differs at tensor {longer.tensors[min(len(self), len(other))].name!r}",
                party=party,
                seen=f"{len(other)} tensors",
                expected=f"{len(self)} tensors",
                next_step="Use the same task file and torch version on both sides",
            )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Version:
    """(s, b, v): which shape, model and mask a payload was made against. All three only ever grow."""

    shape: int = 0
    model: int = 0
    mask: int = 0

    def __post_init__(self) -> None:
        if min(self.shape, self.model, self.mask) < 0:
            raise LocalError("versions start at 0", seen=self)

    def __str__(self) -> str:
        return f"s{self.shape}b{self.model}v{self.mask}"
