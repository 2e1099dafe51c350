"""Compressed sparse rows: the form in which other programs read what fedprune sends.

On the wire places are coded smaller; in memory, and for scipy, torch and everybody else, a tensor is a matrix of shape
[out, rest] with row pointers, columns and values. Nothing here knows scipy or torch: both take these three arrays
as they are, without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError, MissingExtraError
from fedprune.tensor import TensorSpec

Array = NDArray[np.generic]
Integers = NDArray[np.integer]
MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CsrDelta:
    """One tensor's non-zeros: `indptr` [rows + 1], `indices` [nnz] columns, `values` [nnz]; `shape` [rows, columns].

    Columns ascend strictly within a row; both integer arrays have one dtype, int32 where it is wide enough. Raises
    `LocalError` naming what is wrong.
    """

    name: str
    shape: tuple[int, int]
    indptr: Integers
    indices: Integers
    values: Array

    def __post_init__(self) -> None:
        rows, columns = self.shape
        self._require(self.indptr.shape == (rows + 1,), "row pointers of another length", self.indptr.shape)
        self._require(self.indices.shape == self.values.shape, "columns and values of different length", self.nnz)
        lengths = np.diff(self.indptr)
        bounds = self.indptr[0] == 0 and self.indptr[-1] == self.nnz and not bool((lengths < 0).any())
        self._require(bool(bounds), "row pointers that do not fit the columns", self.indptr)
        if self.nnz:
            inside = int(self.indices.min()) >= 0 and int(self.indices.max()) < columns
            self._require(inside, "a column outside the matrix", int(self.indices.max()))
            rising = self.indices[1:] > self.indices[:-1]
            starts = self.indptr[1:-1]
            rising[starts[(starts > 0) & (starts < self.nnz)] - 1] = True  # a new row may start anywhere
            self._require(bool(rising.all()), "columns that are not ascending, or twice in a row", self.name)

    def _require(self, holds: bool, problem: str, seen: object) -> None:
        if not holds:
            raise LocalError(f"tensor {self.name!r} has {problem}", seen=seen, expected=f"matrix {list(self.shape)}")

    @property
    def nnz(self) -> int:
        """Number of values."""
        return self.values.size

    @property
    def nbytes(self) -> int:
        """What plain CSR weighs: pointers, columns and values."""
        return self.indptr.nbytes + self.indices.nbytes + self.values.nbytes

    @classmethod
    def of_places(cls, spec: TensorSpec, places: NDArray[np.intp], values: Array) -> CsrDelta:
        """From flat places [nnz], ascending, and their values."""
        rows, columns = spec.matrix_shape
        dtype = np.dtype(np.int32 if max(columns, places.size) <= MAX_INT32 else np.int64)
        starts = np.arange(rows + 1, dtype=np.int64) * columns
        indptr: Integers = np.searchsorted(places, starts).astype(dtype)
        columns_of: Integers = (places - np.repeat(starts[:-1], np.diff(indptr))).astype(dtype)
        return cls(name=spec.name, shape=(rows, columns), indptr=indptr, indices=columns_of, values=values)

    @classmethod
    def of_dense(cls, spec: TensorSpec, array: Array) -> CsrDelta:
        """The non-zeros of a whole tensor; -0.0 counts as zero."""
        flat = np.ascontiguousarray(array).reshape(-1)
        places = np.flatnonzero(flat)
        return cls.of_places(spec, places, flat[places])

    @classmethod
    def of_scipy(cls, name: str, matrix: Any) -> CsrDelta:
        """From a scipy CSR matrix or array, its memory shared; columns must be sorted and unique."""
        return cls(name=name, shape=matrix.shape, indptr=matrix.indptr, indices=matrix.indices, values=matrix.data)

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array` over the same memory. Raises `MissingExtraError` without scipy."""
        try:
            from scipy.sparse import csr_array
        except ImportError as error:
            raise MissingExtraError("scipy is not installed", next_step="pip install scipy") from error
        return csr_array((self.values, self.indices, self.indptr), shape=self.shape, copy=False)

    def places(self) -> NDArray[np.intp]:
        """Flat places [nnz], ascending."""
        starts = np.arange(self.shape[0], dtype=np.intp) * self.shape[1]
        return np.repeat(starts, np.diff(self.indptr)) + self.indices

    def to_dense(self) -> Array:
        """The matrix [rows, columns], zero where nothing is."""
        dense = np.zeros(self.shape, self.values.dtype)
        dense.reshape(-1)[self.places()] = self.values
        return dense
