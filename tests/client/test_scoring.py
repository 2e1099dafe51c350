"""Scores from data against slow, obvious computations of the same thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedprune.errors import LocalError, TaskError
from fedprune.mask import Mask
from fedprune.task import Shard, load_task
from fedprune.tensor import Schema
from fedprune.torch import Arrays, assign_roles, build_model, load_arrays, signature, to_arrays
from fedprune.work import ScoreWork, TrainWork
from fedprune_client.scoring import Scored, score
from fedprune_client.training import Trainer

WriteTask = Callable[..., Path]
CONVOLUTIONS = (
    "class Net(nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.first = nn.Conv2d(6, 8, 3)\n"
    "        self.norm = nn.BatchNorm2d(8)\n"
    "        self.deep = nn.Conv2d(8, 8, 2, groups=4)\n"
    "        self.last = nn.Linear(8, 3)\n"
    "    def forward(self, x):\n"
    "        x = torch.relu(self.norm(self.first(x)))\n"
    "        return self.last(self.deep(x).relu().mean((2, 3)))\n\n"
    "def model():\n    return Net()\n"
)
PICTURES = (
    "def train_data(shard):\n"
    "    g = torch.Generator().manual_seed(1)\n"
    "    return TensorDataset(torch.randn(10, 6, 5, 5, generator=g), torch.arange(10) % 3)\n"
)
RECURRENT = (
    "class Net(nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.core = nn.GRU(4, 5, batch_first=True)\n"
    "        self.head = nn.Linear(5, 3)\n"
    "    def forward(self, x):\n"
    "        return self.head(self.core(x.unsqueeze(1))[0][:, 0])\n\n"
    "def model():\n    return Net()\n"
)


def open_trainer(path: Path, *, prune: tuple[str, ...] = ()) -> tuple[Trainer, Arrays]:
    task = load_task(path)
    model = build_model(task, seed=1)
    schema = assign_roles(signature(model), [], prune)
    trainer = Trainer.load(task, model, schema, Shard(index=0, count=1, path=path.parent, seed=1), 0.0)
    return trainer, to_arrays(model, schema)


def half(schema: Schema) -> Mask:
    rng = np.random.default_rng(4)
    return Mask(schema=schema, version=1, alive={t.name: rng.random(t.shape) < 0.5 for t in schema.prunable})


def run(trainer: Trainer, weights: Arrays, mask: Mask | None = None, **work: Any) -> Scored:
    asked = ScoreWork(**work)
    found = score(trainer, weights, mask or Mask.full(trainer.schema), asked, stop=lambda: False)
    assert found is not None
    return found


def all_data(trainer: Trainer) -> tuple[Tensor, Tensor]:
    tensors: tuple[Tensor, Tensor] = trainer.training.tensors
    return tensors


def whole_gradient(trainer: Trainer) -> dict[str, np.ndarray]:
    """Gradient of the mean loss over all examples, in one batch."""
    trainer.model.zero_grad()
    torch.autograd.backward(trainer.task.loss(trainer.model, all_data(trainer)))
    found = {}
    for name, parameter in trainer.model.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.numpy().copy()
    return found


ORACLES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "gradient": lambda g, w: np.abs(g),
    "snip": lambda g, w: np.abs(g * w),
    "taylor": lambda g, w: (g * w) ** 2,
    "movement": lambda g, w: -g * w,
}


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("batch_size", [5, 37])
def test_scores_of_gradients_do_not_depend_on_the_batches(write_task: WriteTask, method: str, batch_size: int) -> None:
    trainer, weights = open_trainer(write_task())
    found = run(trainer, weights, method=method, batch_size=batch_size)
    gradient = whole_gradient(trainer)
    assert found.examples == 37
    assert found.scores is not None
    assert list(found.scores) == [t.name for t in trainer.schema.prunable]
    for name, array in found.scores.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, ORACLES[method](gradient[name], weights[name]), rtol=1e-4, atol=1e-8)


def test_fisher_is_the_mean_square_over_single_examples(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    found = run(trainer, weights, method="fisher", batch_size=1)
    assert found.scores is not None
    inputs, labels = all_data(trainer)
    squares = []
    for i in range(len(labels)):
        loss = trainer.task.loss(trainer.model, (inputs[i : i + 1], labels[i : i + 1]))
        weight = trainer.model.get_parameter("0.weight")
        squares.append(torch.autograd.grad(loss, weight)[0].numpy() ** 2)
    np.testing.assert_allclose(found.scores["0.weight"], np.mean(squares, axis=0), rtol=1e-4, atol=1e-8)


def test_pruned_weights_have_gradients_too_and_the_largest_of_them_grow(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    mask = half(trainer.schema)
    mask.apply(weights)
    found = run(trainer, weights, mask, method="gradient", grow=(3, 0))
    gradient = whole_gradient(trainer)
    assert found.scores is None
    assert found.grown is not None
    assert found.gradients is not None
    assert [len(found.grown[n]) for n in ("0.weight", "2.weight")] == [3, 0]
    dead = np.where(mask.alive["0.weight"], 0.0, np.abs(gradient["0.weight"])).reshape(-1)
    assert found.grown["0.weight"].tolist() == sorted(np.argsort(-dead)[:3].tolist())
    expected = gradient["0.weight"].reshape(-1)[found.grown["0.weight"]]
    np.testing.assert_allclose(found.gradients["0.weight"], expected, rtol=1e-4, atol=1e-8)


def test_a_client_that_readjusts_trains_first_and_exchanges_as_many_as_asked(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    mask = half(trainer.schema)
    mask.apply(weights)
    training = TrainWork(learning_rate=0.2, batch_size=4, seed=3)
    found = run(trainer, weights, mask, method="gradient", grow=(3, 0), train=training)
    assert found.proposed is not None
    trained = trainer.train(weights, mask, training, on_step=lambda step, steps: None, stop=lambda: False)
    assert trained is not None
    load_arrays(trainer.model, trainer.schema, trained.weights)
    gradient = np.abs(whole_gradient(trainer)["0.weight"])
    alive, after = mask.alive["0.weight"], found.proposed.alive["0.weight"]
    sizes = np.where(alive, np.abs(trained.weights["0.weight"]), np.inf).reshape(-1)
    assert np.flatnonzero(alive & ~after).tolist() == sorted(np.argsort(sizes)[:3].tolist())
    grown = np.where(alive, 0.0, gradient).reshape(-1)
    assert np.flatnonzero(after & ~alive).tolist() == sorted(np.argsort(-grown)[:3].tolist())
    assert found.proposed.alive["2.weight"].tolist() == mask.alive["2.weight"].tolist()


def test_no_more_grows_than_is_dead(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    mask = half(trainer.schema)
    found = run(trainer, weights, mask, method="gradient", grow=(10**6, 10**6))
    assert found.grown is not None
    for name, alive in mask.alive.items():
        assert found.grown[name].tolist() == np.flatnonzero(~alive).tolist()


def test_wanda_is_weight_times_input_norm(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    found = run(trainer, weights, method="wanda", batch_size=7)
    assert found.scores is not None
    inputs, _ = all_data(trainer)
    hidden = torch.relu(inputs @ torch.from_numpy(weights["0.weight"]).T + torch.from_numpy(weights["0.bias"]))
    for name, read in (("0.weight", inputs), ("2.weight", hidden)):
        expected = np.abs(weights[name]) * read.square().mean(0).sqrt().numpy()
        np.testing.assert_allclose(found.scores[name], expected, rtol=1e-4)


def test_wanda_reads_the_channels_of_each_group(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task(model=CONVOLUTIONS, train_data=PICTURES))
    found = run(trainer, weights, method="wanda", batch_size=4)
    assert found.scores is not None
    model = trainer.model.eval()
    pictures, _ = all_data(trainer)
    read = torch.relu(model.get_submodule("norm")(model.get_submodule("first")(pictures)))
    norms = read.detach().square().mean((0, 2, 3)).sqrt().numpy()
    for row in range(8):
        group = row // 2
        expected = np.abs(weights["deep.weight"][row]) * norms[2 * group : 2 * group + 2, None, None]
        np.testing.assert_allclose(found.scores["deep.weight"][row], expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["activation", "apoz"])
def test_units_are_judged_behind_norm_and_nonlinearity(write_task: WriteTask, method: str) -> None:
    trainer, weights = open_trainer(write_task(model=CONVOLUTIONS, train_data=PICTURES))
    found = run(trainer, weights, method=method, batch_size=4)
    assert found.scores is not None
    model = trainer.model.eval()
    pictures, _ = all_data(trainer)
    hidden = torch.relu(model.get_submodule("norm")(model.get_submodule("first")(pictures)))
    deep = torch.relu(model.get_submodule("deep")(hidden))
    for name, output in (("first.weight", hidden), ("deep.weight", deep)):
        per_unit = (output if method == "activation" else (output != 0).float()).mean((0, 2, 3)).detach().numpy()
        expected = np.abs(weights[name]) * per_unit[:, None, None, None]
        np.testing.assert_allclose(found.scores[name], expected, rtol=1e-4, atol=1e-7)


def test_modules_and_calls_are_seen_alike(write_task: WriteTask) -> None:
    calls = (
        "class Net(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        return self[2](self[1](nn.functional.relu(self[0](x))))\n\n"
        "def model():\n    return Net(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3))\n"
    )
    scores = []
    for parts, second in (({}, "2.weight"), ({"model": calls}, "1.weight")):
        trainer, weights = open_trainer(write_task(**parts))
        found = run(trainer, weights, method="apoz").scores
        assert found is not None
        scores.append((found["0.weight"], found[second]))
    for module, call in zip(*scores, strict=True):
        assert np.array_equal(module, call)


def test_a_layer_used_twice_counts_twice(write_task: WriteTask) -> None:
    twice = (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.b(self.a(self.a(x).relu()))\n\n"
        "def model():\n    return Net()\n"
    )
    trainer, weights = open_trainer(write_task(model=twice))
    found = run(trainer, weights, method="activation").scores
    assert found is not None
    inputs, _ = all_data(trainer)
    layer = trainer.model.get_submodule("a")
    first = torch.relu(layer(inputs))
    both = torch.cat([first, layer(first)]).abs().mean(0).detach().numpy()
    np.testing.assert_allclose(found["a.weight"], np.abs(weights["a.weight"]) * both[:, None], rtol=1e-4)


def test_gates_are_scored_by_gradient_but_not_by_what_flows(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task(model=RECURRENT))
    found = run(trainer, weights, method="snip").scores
    assert found is not None
    assert list(found) == ["core.weight_ih_l0", "core.weight_hh_l0"]
    with pytest.raises(LocalError, match=r"'wanda' cannot see what flows through 'core.weight_ih_l0'.*protect"):
        run(trainer, weights, method="wanda")


def test_the_same_work_gives_the_same_bits_and_moves_nothing(write_task: WriteTask) -> None:
    dropout = (
        "def model():\n    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Linear(8, 3))\n"
    )
    trainer, weights = open_trainer(write_task(model=dropout))
    before = {name: array.copy() for name, array in weights.items()}
    state = torch.get_rng_state()
    scores = [run(trainer, weights, method="snip", seed=seed, batches=2, batch_size=8).scores for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    trainer.model.eval()
    scores.append(run(trainer, weights, method="snip", seed=1, batches=2, batch_size=8).scores)
    one, same, other, later = (found["0.weight"] for found in scores if found is not None)
    assert np.array_equal(one, same)
    assert np.array_equal(one, later)
    assert not np.array_equal(one, other)
    assert all(np.array_equal(weights[n], before[n]) for n in weights)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_batches_are_as_many_as_asked(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    assert run(trainer, weights, method="gradient", batches=2, batch_size=8).examples == 16
    assert run(trainer, weights, method="wanda", batches=2, batch_size=8).examples == 16


@pytest.mark.parametrize("method", ["gradient", "wanda"])
def test_a_stop_gives_nothing(write_task: WriteTask, method: str) -> None:
    trainer, weights = open_trainer(write_task())
    assert score(trainer, weights, half(trainer.schema), ScoreWork(method=method), stop=lambda: True) is None


@pytest.mark.parametrize(
    ("work", "message"),
    [
        ({"method": "synflow"}, r"no such score from data \(got 'synflow', expected activation \| apoz"),
        ({"method": "snip", "grow": (1, 1)}, r"nothing can be grown by this \(got 'snip'"),
        ({"method": "gradient", "grow": (1,)}, r"nothing can be grown by this \(got 'gradient' for 1 tensors"),
    ],
)
def test_work_that_cannot_be_done_is_refused(write_task: WriteTask, work: dict[str, Any], message: str) -> None:
    trainer, weights = open_trainer(write_task())
    with pytest.raises(LocalError, match=message):
        run(trainer, weights, **work)


def test_scores_that_are_not_finite_are_not_sent(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(
        write_task(loss="def loss(model, batch):\n    return model(batch[0]).mean() * 1e38 * 1e38\n")
    )
    with pytest.raises(TaskError, match=r"scores of '0.weight' are not finite"):
        run(trainer, weights, method="gradient")


def test_a_layer_the_loss_does_not_reach_scores_zero(write_task: WriteTask) -> None:
    idle = (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.idle, self.used, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.last(self.used(x))\n\n"
        "def model():\n    return Net()\n"
    )
    trainer, weights = open_trainer(write_task(model=idle))
    found = run(trainer, weights, method="snip").scores
    assert found is not None
    assert not found["idle.weight"].any()
    assert found["used.weight"].any()
