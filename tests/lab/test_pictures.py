"""Pictures of masks, read again by a library that we do not use."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from fedprune.errors import LocalError
from fedprune_lab import pictures


@pytest.mark.parametrize("shape", [(3, 17), (5, 2, 3, 3), (9,), (1, 8)])
def test_a_dot_for_each_weight(shape: tuple[int, ...]) -> None:
    bits = np.random.default_rng(1).random(shape) < 0.4
    seen = np.array(Image.open(io.BytesIO(pictures.png(bits))))
    assert np.array_equal(seen, bits.reshape(shape[0] if len(shape) > 1 else 1, -1))


def test_a_file_for_each_layer(tmp_path: Path) -> None:
    weights = {"a.weight": np.eye(4, dtype=np.float32), "b": np.ones(3, np.float32)}
    save_file(weights, tmp_path / "model.safetensors")
    (path,) = pictures.run(tmp_path, ["a.weight"], tmp_path / "out")
    assert path.name == "a.weight.png"
    assert np.array_equal(np.array(Image.open(path)), np.eye(4, dtype=bool))


def test_where_there_is_nothing_to_see(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no model to picture"):
        pictures.run(tmp_path, ["a"], tmp_path / "out")
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(LocalError, match="nothing was pruned"):
        pictures.run(tmp_path, [], tmp_path / "out")
