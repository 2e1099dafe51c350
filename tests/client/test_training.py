"""Local training: the bits repeat, the mask holds in anyone's loop, and the task's mistakes come back as sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedprune.errors import TaskError
from fedprune.mask import Mask
from fedprune.task import Shard, load_task
from fedprune.torch import Arrays, build_model, signature, to_arrays
from fedprune.work import EvaluateWork, TrainWork
from fedprune_client.training import Trained, Trainer

WriteTask = Callable[..., Path]

OWN_LOOP = (
    "def train(model, data, ctx):\n"
    "    optimizer = ctx.optimizer(model)\n"
    "    for batch in ctx.batches(data):\n"
    "        optimizer.zero_grad()\n"
    "        loss(model, batch).backward()\n"
    "        optimizer.step()\n"
)
DROPOUT = "def model():\n    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Linear(8, 3))\n"


def open_trainer(path: Path, *, held_out: float = 0.0, index: int = 0) -> Trainer:
    task = load_task(path)
    model = build_model(task, seed=1)
    shard = Shard(index=index, count=2, path=path.parent, seed=1)
    return Trainer.load(task, model, signature(model), shard, held_out)


def start(trainer: Trainer) -> Arrays:
    return to_arrays(trainer.model, trainer.schema)


def half_mask(trainer: Trainer) -> Mask:
    rng = np.random.default_rng(3)
    alive = {t.name: rng.random(t.shape) < 0.5 for t in trainer.schema.prunable}
    return Mask(schema=trainer.schema, version=1, alive=alive)


def train(trainer: Trainer, weights: Arrays, mask: Mask | None = None, **work: Any) -> Trained:
    done = trainer.train(
        weights,
        mask or Mask.full(trainer.schema),
        TrainWork(**work),
        on_step=lambda step, steps: None,
        stop=lambda: False,
    )
    assert done is not None
    return done


def one_round(path: Path) -> Trained:
    trainer = open_trainer(path)
    return train(trainer, start(trainer))


class Watcher:
    """Notes each step, and says stop after `last` of them."""

    def __init__(self, last: int = 99) -> None:
        self.seen: list[tuple[int, int]] = []
        self.last = last

    def step(self, step: int, steps: int) -> None:
        self.seen.append((step, steps))

    def stop(self) -> bool:
        return len(self.seen) >= self.last


def same(one: Arrays, other: Arrays) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_training_lowers_the_loss_and_says_what_it_did(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task())
    weights = start(trainer)
    first = train(trainer, weights, learning_rate=0.2)
    later = train(trainer, first.weights, epochs=30, learning_rate=0.2)
    assert (first.examples, first.steps, later.steps) == (37, 2, 60)
    assert later.metrics["loss"] < first.metrics["loss"]


@pytest.mark.parametrize("parts", [{}, {"model": DROPOUT}, {"train": OWN_LOOP}, {"train": OWN_LOOP, "model": DROPOUT}])
def test_the_same_work_gives_the_same_bits(write_task: WriteTask, parts: dict[str, str]) -> None:
    trainer = open_trainer(write_task(**parts))
    weights = start(trainer)
    first = train(trainer, weights, seed=4, epochs=3)
    torch.rand(3)
    again = train(open_trainer(trainer.task.path), weights, seed=4, epochs=3)
    other = train(trainer, weights, seed=5, epochs=3)
    assert same(first.weights, again.weights)
    assert same(first.weights, train(trainer, weights, seed=4, epochs=3).weights)
    assert not same(first.weights, other.weights)


def test_the_default_loop_is_what_a_plain_loop_would_do(write_task: WriteTask) -> None:
    path = write_task()
    own = write_task("own.py", train=OWN_LOOP)
    one, other = open_trainer(path), open_trainer(own)
    weights = start(one)
    assert same(train(one, weights, epochs=2).weights, train(other, weights, epochs=2).weights)


def test_the_global_generators_are_left_alone(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task(model=DROPOUT))
    weights = start(trainer)
    before = torch.get_rng_state()
    train(trainer, weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("train_part", ["", OWN_LOOP])
def test_nothing_off_the_mask_comes_back(write_task: WriteTask, optimizer: str, train_part: str) -> None:
    trainer = open_trainer(write_task(**({"train": train_part} if train_part else {})))
    mask = half_mask(trainer)
    done = train(trainer, start(trainer), mask, epochs=5, optimizer=optimizer, weight_decay=0.01)
    for name, alive in mask.alive.items():
        assert not done.weights[name][~alive].any()
        assert done.weights[name][alive].all()


def test_rounds_do_not_depend_on_what_the_model_held_before(write_task: WriteTask) -> None:
    path = write_task(
        model="def model():\n    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))\n"
    )
    trainer = open_trainer(path)
    weights = start(trainer)
    first = train(trainer, weights)
    train(trainer, first.weights, half_mask(trainer))
    assert same(train(trainer, weights).weights, first.weights)
    assert first.weights["1.num_batches_tracked"] == weights["1.num_batches_tracked"] + 2


def test_measuring_in_between_does_not_switch_dropout_off(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task(model=DROPOUT), held_out=0.2)
    weights = start(trainer)
    first = train(trainer, weights)
    trainer.evaluate(weights, EvaluateWork())
    assert same(train(trainer, weights).weights, first.weights)


def test_steps_cut_the_epochs_short(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task())
    weights = start(trainer)
    assert train(trainer, weights, epochs=3, steps=5).steps == 5
    assert train(trainer, weights, epochs=3, steps=50).steps == 6


@pytest.mark.parametrize("parts", [{}, {"train": OWN_LOOP}])
def test_progress_counts_to_what_was_planned(write_task: WriteTask, parts: dict[str, str]) -> None:
    trainer, watcher = open_trainer(write_task(**parts)), Watcher()
    work, full = TrainWork(epochs=2, steps=3), Mask.full(trainer.schema)
    trainer.train(start(trainer), full, work, on_step=watcher.step, stop=watcher.stop)
    assert watcher.seen == [(1, 3), (2, 3), (3, 3)]


STUBBORN = OWN_LOOP.replace("        optimizer.step()", "        try: optimizer.step()\n        except Exception: pass")


@pytest.mark.parametrize("parts", [{}, {"train": STUBBORN}])
def test_a_stop_ends_training_in_any_loop_and_gives_nothing(write_task: WriteTask, parts: dict[str, str]) -> None:
    trainer, watcher = open_trainer(write_task(**parts)), Watcher(last=2)
    work, mask = TrainWork(epochs=50), half_mask(trainer)
    assert trainer.train(start(trainer), mask, work, on_step=watcher.step, stop=watcher.stop) is None
    assert watcher.seen == [(1, 100), (2, 100)]


def test_the_proximal_term_holds_weights_near_the_start(write_task: WriteTask) -> None:
    def moved(trainer: Trainer, proximal: float) -> float:
        weights = start(trainer)
        done = train(trainer, weights, epochs=20, learning_rate=0.05, proximal=proximal)
        return float(sum(np.square(done.weights[n] - weights[n]).sum() for n in weights))

    for parts in ({}, {"train": OWN_LOOP}):
        path = write_task(**parts)
        assert moved(open_trainer(path), 5.0) < 0.5 * moved(open_trainer(path), 0.0)


def test_one_proximal_step_is_fedprox(write_task: WriteTask) -> None:
    """After one plain step d, the second gradient is that of the loss plus mu * d."""
    trainer = open_trainer(
        write_task(
            train_data="def train_data(shard):\n    return TensorDataset(torch.ones(4, 4), torch.tensor([0, 1, 2, 0]))\n"
        )
    )
    weights = start(trainer)
    work: dict[str, Any] = {"momentum": 0.0, "learning_rate": 0.1, "batch_size": 4}
    one = train(trainer, weights, **work).weights
    two = train(trainer, one, **work).weights
    pulled = train(trainer, weights, epochs=2, proximal=3.0, **work).weights
    for name in weights:
        np.testing.assert_allclose(pulled[name], two[name] - 0.1 * 3.0 * (one[name] - weights[name]), atol=1e-6)


def test_a_share_is_held_out_and_measured(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task(), held_out=0.25)
    assert train(trainer, start(trainer)).examples == 28
    assert trainer.evaluate(start(trainer), EvaluateWork()).examples == 9
    alone = open_trainer(
        write_task(train_data="def train_data(shard):\n    return [(torch.ones(4), 1)]\n"), held_out=0.25
    )
    assert alone.evaluate(start(alone), EvaluateWork()).examples == 0
    assert train(alone, start(alone)).examples == 1


def test_shards_hold_out_by_their_own_seed(write_task: WriteTask) -> None:
    path = write_task()
    held = [open_trainer(path, held_out=0.3, index=i).held_out for i in (0, 0, 1)]
    positions = [h.positions.tolist() for h in held if h is not None]
    assert positions[0] == positions[1] != positions[2]


def test_ready_batches_are_counted_as_they_are_read(write_task: WriteTask) -> None:
    data = "def train_data(shard):\n    d = TensorDataset(torch.ones(10, 4), torch.zeros(10).long())\n    return torch.utils.data.DataLoader(d, 4)\n"
    trainer = open_trainer(write_task(train_data=data), held_out=0.2)
    done = train(trainer, start(trainer), epochs=2)
    assert (done.examples, done.steps) == (10, 6)


def test_the_task_may_say_how_many_examples_it_used(write_task: WriteTask) -> None:
    trainer = open_trainer(write_task(train=OWN_LOOP + "    return 5\n"))
    done = train(trainer, start(trainer))
    assert (done.examples, done.metrics, done.steps) == (5, {}, 2)


NO_GRADIENT = "def loss(model, batch):\n    return model(batch[0]).mean().detach()\n"
NOT_FINITE = "def loss(model, batch):\n    return model(batch[0]).mean() / 0\n"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"loss": NO_GRADIENT}, r"task.py: `loss` does not lead back to the model's weights"),
        ({"loss": NOT_FINITE}, r"the training loss is not a finite number \(got (-?inf|nan)\). Lower"),
        (
            {"loss": "def loss(model, batch):\n    return model(batch)\n"},
            r"`loss` failed at task.py line \d+: TypeError",
        ),
        ({"train": "def train(model, data, ctx):\n    return 0\n"}, r"`train` does not return how many.*got 0"),
        ({"train": "def train(model, data, ctx):\n    return 2.5\n"}, r"`train` does not return how many.*got 2.5"),
        (
            {"train": "def train(model, data, ctx):\n    data[0] / 0\n"},
            r"`train` failed at task.py line \d+: TypeError",
        ),
        (
            {"train_data": "def train_data(shard):\n    return []\n"},
            r"task.py, shard 0 of 2: `train_data` returns no ex",
        ),
        ({"train_data": "def train_data(shard):\n    return {1}\n"}, r"`loss` failed at task.py"),
        ({"train_data": "def train_data(shard):\n    return set()\n"}, r"`train_data` gives no batches"),
    ],
)
def test_mistakes_in_the_task_come_back_as_sentences(
    write_task: WriteTask, parts: dict[str, str], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        one_round(write_task(**parts))


def test_the_model_stays_usable_after_a_mistake(write_task: WriteTask) -> None:
    """The hooks are gone: a later step outside is not masked."""
    trainer = open_trainer(write_task(loss=NO_GRADIENT))
    with pytest.raises(TaskError):
        train(trainer, start(trainer), half_mask(trainer))
    weight = trainer.model.get_parameter("0.weight")
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=1.0).step()
    assert bool(weight.all())
