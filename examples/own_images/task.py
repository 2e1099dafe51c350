"""Pictures you already have: MNIST and its relatives as IDX files, or CIFAR-10 in its binary version.

Put them into `data/` beside this file, or say where a client's lie with `--data FOLDER`. They are the usual ones:
train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k, packed (.gz) or not; or data_batch_1.bin to
data_batch_5.bin and test_batch.bin. Nothing is downloaded.
"""

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard
from fedprune_lab.partition import iid

CHANNELS = 1  # 1 for MNIST and its relatives, 3 for CIFAR-10
CUT = True  # cut one folder among the clients; False where each client has a folder of its own
DATA = Path(__file__).parent / "data"


def model() -> nn.Module:
    return nn.Sequential(
        *_stage(CHANNELS, 32),
        *_stage(32, 64),
        *_stage(64, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def train_data(shard: Shard) -> TensorDataset:
    images, labels = _read(DATA if shard.path == Path(__file__).parent else shard.path, train=True)
    if not CUT:
        return TensorDataset(images, labels)
    own = torch.from_numpy(iid(len(labels), shard.count, seed=0)[shard.index])
    return TensorDataset(images[own], labels[own])


def test_data() -> TensorDataset:
    return TensorDataset(*_read(DATA, train=False))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    images, labels = batch
    return {"accuracy": (model(images).argmax(1) == labels).float().mean().item()}


def _stage(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return convolution, nn.GroupNorm(8, outputs), nn.ReLU(), nn.MaxPool2d(2)


def _read(folder: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Pictures [n, CHANNELS, height, width] scaled to 0..1, and labels [n]."""
    if (folder / "test_batch.bin").is_file():
        files = [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]
        raw = np.concatenate([np.fromfile(folder / f, np.uint8) for f in files if (folder / f).is_file()])
        records = raw.reshape(-1, 1 + 3 * 32 * 32)
        images, labels = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    else:
        part = "train" if train else "t10k"
        images = _read_idx(folder, f"{part}-images-idx3-ubyte")[:, None]
        labels = _read_idx(folder, f"{part}-labels-idx1-ubyte")
    return torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long()


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """One IDX file: two zero bytes, 8 for bytes, the number of axes, each axis as a big-endian int32, the values."""
    packed = folder / f"{name}.gz"
    raw = gzip.decompress(packed.read_bytes()) if packed.is_file() else (folder / name).read_bytes()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{name} is no IDX file of bytes")
    axes = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(axes).copy()
