"""What is exported is what scipy and torch open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.sparse import load_npz

from fedprune.codec import UpdateReader, encode_update
from fedprune.csr import CsrDelta
from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Schema, TensorSpec
from fedprune_lab import export_csr

SPEC = TensorSpec(name="layer.weight", shape=(20, 30))


def weights() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=SPEC.shape) * (rng.random(SPEC.shape) < 0.1)).astype(np.float32)


def test_a_model_becomes_files_that_scipy_opens(tmp_path: Path) -> None:
    save_file({"layer.weight": weights(), "layer.bias": np.ones(20, np.float32)}, tmp_path / "model.safetensors")
    export_csr.run(tmp_path, tmp_path / "csr")
    assert [path.name for path in (tmp_path / "csr").iterdir()] == ["layer.weight.npz"]
    assert np.array_equal(load_npz(tmp_path / "csr" / "layer.weight.npz").toarray(), weights())


def test_no_model_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no model"):
        export_csr.run(tmp_path, tmp_path / "csr")


@pytest.mark.parametrize("shared", [True, False])
def test_an_update_becomes_csr(shared: bool) -> None:
    schema = Schema(tensors=(SPEC,))
    mask = Mask(schema=schema, version=1, alive={SPEC.name: weights() != 0}) if shared else None
    reader = UpdateReader(encode_update({SPEC.name: weights()}, schema=schema, mask=mask), schema=schema, mask=mask)
    (delta,) = export_csr.of_update(reader, mask)
    assert np.array_equal(delta.to_dense(), weights())


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_torch_and_back_share_memory() -> None:
    delta = CsrDelta.of_dense(SPEC, weights())
    tensor = export_csr.to_torch(delta)
    assert torch.equal(tensor.to_dense(), torch.from_numpy(weights()))
    again = export_csr.of_torch("layer.weight", tensor)
    assert np.shares_memory(again.values, delta.values)
    with pytest.raises(LocalError, match="no CSR"):
        export_csr.of_torch("w", torch.zeros(3, 3))
