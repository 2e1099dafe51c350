"""The accuracy benches' task: the same signals in each process, and the backward pass it writes out is autograd's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mnist1d.data import get_dataset_args, make_dataset
from torch import nn

from fedprune.task import load_task

SIGNALS = Path(__file__).parents[2] / "bench" / "tasks" / "signals.py"


def test_the_gradients_written_out_are_those_of_the_loss() -> None:
    task = load_task(SIGNALS)
    assert task.train is not None
    torch.manual_seed(1)
    model = task.model()
    rng = np.random.default_rng(1)
    batch = (
        torch.from_numpy(rng.standard_normal((9, 40), np.float32)),
        torch.from_numpy(rng.integers(0, 10, 9)),
    )
    wanted = torch.autograd.grad(task.loss(model, batch), list(model.parameters()))

    class Context:
        """One step that changes nothing."""

        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=0.0)

        def batches(self, data: Any) -> Any:
            return [data]

    task.train(model, batch, Context())
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


def test_the_signals_are_the_same_whatever_else_draws() -> None:
    """As a process that does nothing else draws them: other threads use numpy's generator as well."""
    np.random.seed(7)
    task = load_task(SIGNALS)
    np.random.seed(8)
    assert task.test_data is not None
    signals, labels = task.test_data().tensors
    expected = make_dataset(get_dataset_args())
    assert np.array_equal(labels.numpy(), expected["y_test"])
    assert np.array_equal(signals.numpy(), expected["x_test"].astype(np.float32))
    source = SIGNALS.read_text()
    assert source.count("make_dataset(") == source.count("\nMADE: dict[str, np.ndarray] = make_dataset(") == 1
