"""Every example is a good task with a good run file, trains, prunes, and stays sparse, at reduced size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fedprune.config import RunConfig
from fedprune.mask import Mask
from fedprune.pruning import Floors, magnitude_mask
from fedprune.task import Shard, Task, load_task
from fedprune.torch import assign_roles, build_model, signature, to_arrays
from fedprune.work import EvaluateWork, TrainWork
from fedprune_client.check import check
from fedprune_client.training import Trained, Trainer

from .made_up import write_idx, write_pictures

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if (path / "task.py").is_file())


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the example's folder, with a few made-up pictures where it wants the reader's own."""
    folder = tmp_path / str(request.param)
    shutil.copytree(EXAMPLES / str(request.param), folder)
    if request.param == "own_images":
        write_pictures(folder / "data")
    return folder


def one_round(trainer: Trainer, mask: Mask, config: RunConfig, steps: int = 2) -> Trained:
    training = config.training
    work = TrainWork(
        steps=steps,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
    )
    weights = to_arrays(trainer.model, trainer.schema)
    done = trainer.train(weights, mask, work, on_step=lambda step, steps: None, stop=lambda: False)
    assert done is not None
    return done


def open_trainer(task: Task, config: RunConfig, *, index: int, count: int) -> Trainer:
    model = build_model(task, seed=config.run.seed)
    schema = assign_roles(signature(model), config.pruning.protect, config.pruning.prune)
    return Trainer.load(task, model, schema, Shard(index=index, count=count, path=task.path.parent, seed=1), 0.1)


def test_there_are_examples_of_every_kind() -> None:
    assert {"characters", "digits_cnn", "mnist1d", "own_images", "tabular", "transformer"} <= set(FOLDERS)


@pytest.mark.parametrize("example", FOLDERS, indirect=True)
def test_it_trains_prunes_and_stays_sparse(example: Path) -> None:
    config = RunConfig.load(example / "run.toml", [])
    density = config.pruning.density
    assert density != "auto"
    assert density < 1.0
    report = check(example / "task.py", count=config.clients.expect)
    assert report.metrics.keys() >= {"loss", "accuracy"}
    assert report.test_examples
    trainer = open_trainer(load_task(example / "task.py"), config, index=1, count=config.clients.expect)
    dense = one_round(trainer, Mask.full(trainer.schema), config)
    mask = magnitude_mask(dense.weights, Mask.full(trainer.schema), density, Floors(), 1)
    sparse = one_round(trainer, mask, config)
    for name, alive in mask.alive.items():
        assert not sparse.weights[name][~alive].any()
    assert mask.density == pytest.approx(density, rel=0.2)
    found = trainer.evaluate(sparse.weights, EvaluateWork())
    assert found.examples > 0
    assert np.isfinite(found.metrics["loss"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_its_page_shows_how_to_run_it(folder: str) -> None:
    page = (EXAMPLES / folder / "README.md").read_text()
    assert f"fedprune server examples/{folder}/run.toml --task examples/{folder}/task.py" in page
    assert f"fedprune client --server 127.0.0.1:7400 --task examples/{folder}/task.py" in page


@pytest.mark.parametrize("example", ["digits_cnn", "tabular", "characters"], indirect=True)
def test_the_loss_falls(example: Path) -> None:
    config = RunConfig.load(example / "run.toml", [])
    trainer = open_trainer(load_task(example / "task.py"), config, index=0, count=config.clients.expect)
    before = trainer.evaluate(to_arrays(trainer.model, trainer.schema), EvaluateWork()).metrics["loss"]
    done = one_round(trainer, Mask.full(trainer.schema), config, steps=20)
    assert trainer.evaluate(done.weights, EvaluateWork()).metrics["loss"] < before


def test_a_reader_s_own_text_goes_before_the_poems(tmp_path: Path) -> None:
    task = load_task(EXAMPLES / "characters" / "task.py")
    (tmp_path / "text.txt").write_text("ab\n" * 100)
    characters, following = task.train_data(Shard(index=2, count=4, path=tmp_path, seed=1)).tensors
    assert characters.shape == following.shape == (13, 64)
    assert torch.equal(characters[:, 1:], following[:, :-1])
    assert characters[0, :3].tolist() == [ord("a") - 32, ord("b") - 32, 95]


@pytest.mark.parametrize("example", ["own_images"], indirect=True)
def test_cifar_s_binary_files_are_read(example: Path) -> None:
    path = example / "task.py"
    path.write_text(path.read_text().replace("CHANNELS = 1", "CHANNELS = 3"))
    record = np.arange(1 + 3072, dtype=np.int64).astype(np.uint8)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (example / "data" / name).write_bytes(np.stack([record] * 10).tobytes())
    task = load_task(path)
    images, labels = task.train_data(Shard(index=0, count=1, path=example, seed=1)).tensors
    assert (images.shape, labels.tolist()) == ((20, 3, 32, 32), [0] * 20)
    assert images[0, 1, 0, 0].item() == pytest.approx((1025 % 256) / 255)
    assert task.loss(build_model(task), (images, labels)).item() > 0


@pytest.mark.parametrize("example", ["own_images"], indirect=True)
def test_own_images_reads_a_client_s_own_folder(example: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_idx(own / "train-images-idx3-ubyte", np.full((6, 28, 28), 255, np.uint8))
    write_idx(own / "train-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    images, labels = load_task(example / "task.py").train_data(Shard(index=0, count=1, path=own, seed=1)).tensors
    assert (images.shape, float(images.min()), labels.tolist()) == ((6, 1, 28, 28), 1.0, [0, 1, 2, 3, 4, 5])
