"""The demo's task is what its page says: the pictures, the split, the shares, the model's size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import fedprune_lab
from fedprune.task import Shard, Task, load_task
from fedprune.torch import build_model, signature

FOLDER = Path(fedprune_lab.__file__).parent
# SHA-256 of all 1,797 pictures in lexicographic order, taken from the original.
PICTURES = "3013ca2de9a064a8f3b0cd1f57c04dc521fef20303d1b6a8e0c8eb1350569fee"


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(FOLDER / "digits.py")


def shard(task: Task, index: int, count: int, *, seed: int = 1) -> torch.utils.data.TensorDataset:
    found = task.train_data(Shard(index=index, count=count, path=FOLDER, seed=seed))
    assert isinstance(found, torch.utils.data.TensorDataset)
    return found


def test_the_file_holds_what_its_page_says() -> None:
    with np.load(FOLDER / "data" / "digits.npz") as arrays:
        train, test = arrays["train_images"], arrays["test_images"]
        assert (train.shape, test.shape, train.dtype) == ((1437, 8, 8), (360, 8, 8), np.dtype(np.uint8))
        assert (int(train.max()), int(test.max())) == (16, 16)
        assert np.bincount(arrays["test_labels"]).tolist() == [36] * 10
        # of each digit as many as in the original: 178 zeros, 182 ones, ...
        both = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
        assert np.bincount(both).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        pictures = np.concatenate([train, test]).reshape(1797, 64)
        assert hashlib.sha256(pictures[np.lexsort(pictures.T)].tobytes()).hexdigest() == PICTURES
    page = (FOLDER / "data" / "README.md").read_text()
    for fact in ("CC BY 4.0", "Alpaydin", "Kaynak", "1998", "1,437", "360"):
        assert fact in page


def test_the_model_has_as_many_weights_as_the_demo_says(task: Task) -> None:
    schema = signature(build_model(task))
    assert schema.parameters == 150_442
    assert [t.name for t in schema.prunable] == ["1.weight", "3.weight"]
    assert sum(t.size for t in schema.prunable) == 147_456


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_shares_hold_each_picture_once_whatever_the_seed(task: Task, count: int) -> None:
    shares = [shard(task, i, count) for i in range(count)]
    assert sum(len(s) for s in shares) == 1437
    assert min(len(s) for s in shares) >= 20
    whole = torch.cat([s.tensors[0] for s in shares]).sum()
    assert torch.isclose(whole, shard(task, 0, 1).tensors[0].sum())
    assert torch.equal(shares[0].tensors[0], shard(task, 0, count, seed=9).tensors[0])


def test_four_clients_are_lopsided(task: Task) -> None:
    for i in range(4):
        counts = torch.bincount(shard(task, i, 4).tensors[1], minlength=10)
        assert int(counts.max()) > 5 * int(counts.sort().values[2])


def test_accuracy_is_the_share_of_right_answers(task: Task) -> None:
    assert task.test_data is not None
    assert task.metrics is not None
    images, labels = task.test_data().tensors
    assert (len(labels), float(images.max())) == (360, 1.0)
    always_three = torch.nn.Linear(64, 10)
    torch.nn.init.zeros_(always_three.weight)
    always_three.bias.data = torch.nn.functional.one_hot(torch.tensor(3), 10).float()
    found = task.metrics(torch.nn.Sequential(torch.nn.Flatten(), always_three), (images, labels))
    assert found == {"accuracy": pytest.approx(0.1)}
