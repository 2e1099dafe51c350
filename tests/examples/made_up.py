"""Pictures in the place of those that a reader has, in the files they come in."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, array: np.ndarray) -> None:
    """One IDX file of bytes, packed."""
    head = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    with gzip.open(path.with_name(path.name + ".gz"), "wb") as file:
        file.write(head + array.tobytes())


def write_pictures(folder: Path) -> None:
    """MNIST's four files, with few and random pictures."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for part, count in (("train", 80), ("t10k", 20)):
        write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
