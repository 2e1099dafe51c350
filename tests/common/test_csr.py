"""CSR is exact, shares memory where it says so, and refuses what is no CSR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from fedprune.csr import CsrDelta
from fedprune.errors import LocalError
from fedprune.tensor import TensorSpec


def sparse(shape: tuple[int, ...], density: float = 0.2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)


@given(st.lists(st.integers(0, 6), max_size=4), st.floats(0, 1))
def test_dense_and_back(shape: list[int], density: float) -> None:
    array = sparse(tuple(shape), density)
    spec = TensorSpec(name="w", shape=array.shape)
    delta = CsrDelta.of_dense(spec, array)
    assert np.array_equal(delta.to_dense(), array.reshape(spec.matrix_shape))
    assert delta.nnz == np.count_nonzero(array)


def test_scipy_and_back_share_memory() -> None:
    delta = CsrDelta.of_dense(TensorSpec(name="w", shape=(30, 40)), sparse((30, 40)))
    matrix = delta.to_scipy()
    assert np.shares_memory(matrix.data, delta.values)
    assert np.shares_memory(matrix.indices, delta.indices)
    assert np.array_equal(matrix.toarray(), delta.to_dense())
    again = CsrDelta.of_scipy("w", matrix)
    assert np.shares_memory(again.values, delta.values)


def test_more_columns_than_sixteen_bits() -> None:
    array = sparse((3, 70_000), 0.001)
    delta = CsrDelta.of_dense(TensorSpec(name="w", shape=array.shape), array)
    assert delta.indices.dtype == np.int32
    assert np.array_equal(delta.to_dense(), array)


def test_a_kernel_is_a_matrix_of_its_outputs() -> None:
    array = sparse((8, 4, 3, 3))
    delta = CsrDelta.of_dense(TensorSpec(name="conv", shape=array.shape), array)
    assert delta.shape == (8, 36)
    assert np.array_equal(delta.places(), np.flatnonzero(array))


def test_plain_csr_weighs_eight_bytes_a_value() -> None:
    delta = CsrDelta.of_dense(TensorSpec(name="w", shape=(100, 100)), sparse((100, 100)))
    assert delta.nbytes == 4 * 101 + 8 * delta.nnz


@pytest.mark.parametrize(
    ("indptr", "indices", "problem"),
    [
        ([0, 2, 3], [1, 1, 0], "twice"),
        ([0, 2, 3], [2, 1, 0], "ascending"),
        ([0, 2, 3], [0, 1, 5], "outside"),
        ([0, 2, 3], [0, -1, 1], "outside"),
        ([0, 2, 4], [0, 1, 1], "row pointers"),
        ([0, 3, 2], [0, 1, 2], "row pointers"),
        ([1, 2, 3], [0, 1, 2], "row pointers"),
        ([0, 3], [0, 1, 2], "row pointers"),
        ([0, 1, 2], [0, 1], "length"),
    ],
)
def test_what_is_no_csr_is_refused_by_name(indptr: list[int], indices: list[int], problem: str) -> None:
    with pytest.raises(LocalError, match=f"'w'.*{problem}"):
        CsrDelta(
            name="w",
            shape=(2, 3),
            indptr=np.array(indptr, np.int32),
            indices=np.array(indices, np.int32),
            values=np.ones(3, np.float32),
        )


def test_unsorted_scipy_matrices_are_refused() -> None:
    matrix = csr_array((np.ones(2), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    with pytest.raises(LocalError, match="ascending"):
        CsrDelta.of_scipy("w", matrix)
