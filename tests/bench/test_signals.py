"""The backward pass that the accuracy benches' task writes out is autograd's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
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
