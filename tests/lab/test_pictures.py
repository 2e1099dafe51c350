"""Pictures of masks, read again by a library that we do not use."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from fedprune.errors import LocalError
from fedprune_lab import pictures


@pytest.mark.parametrize("shape", [(3, 17), (5, 2, 3, 3), (9,), (1, 600)])
def test_a_dot_for_each_weight_of_each_layer(shape: tuple[int, ...], tmp_path: Path) -> None:
    bits = np.random.default_rng(1).random(shape) < 0.4
    save_file({"a.weight": bits.astype(np.float32), "b": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    (path,) = pictures.run(tmp_path, ["a.weight"], tmp_path / "out")
    assert path.name == "a.weight.png"
    opacity = np.array(Image.open(path).convert("RGBA"))[..., 3]
    assert np.array_equal(opacity > 0, bits.reshape(shape[0] if len(shape) > 1 else 1, -1))


def test_where_there_is_nothing_to_see(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no model to picture"):
        pictures.run(tmp_path, ["a"], tmp_path / "out")
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(LocalError, match="nothing was pruned"):
        pictures.run(tmp_path, [], tmp_path / "out")
