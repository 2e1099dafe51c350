"""Whatever steps the weights, what is pruned stays zero: weights, gradients and the optimizer's memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from fedprune.mask import Mask
from fedprune.torch import MaskHook, signature

MakeOptimizer = Callable[[nn.Module], Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": lambda m: SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda m: SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd-fused": lambda m: SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01, fused=True),
    "adam": lambda m: Adam(m.parameters(), lr=0.01, weight_decay=0.01, amsgrad=True),
    "adamw": lambda m: AdamW(m.parameters(), lr=0.01, weight_decay=0.01),
    "adamw-fused": lambda m: AdamW(m.parameters(), lr=0.01, weight_decay=0.01, fused=True),
    "adamw-foreach": lambda m: AdamW(m.parameters(), lr=0.01, weight_decay=0.01, foreach=True),
    "rmsprop": lambda m: RMSprop(m.parameters(), lr=0.01, momentum=0.9),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def sparse_mask(model: nn.Module, density: float = 0.3) -> Mask:
    schema = signature(model)
    rng = np.random.default_rng(7)
    return Mask(schema=schema, version=1, alive={t.name: rng.random(t.shape) < density for t in schema.prunable})


def off_mask(model: nn.Module, mask: Mask, pick: Callable[[nn.Parameter], Tensor | None]) -> int:
    """Number of non-zeros off the mask in what `pick` reads of each masked parameter."""
    parameters = dict(model.named_parameters())
    picked = [(pick(parameters[name]), bits) for name, bits in mask.alive.items()]
    return sum(int(np.count_nonzero(t.detach().numpy()[~bits])) for t, bits in picked if t is not None)


def remembered(optimizer: Optimizer, name: str) -> Callable[[nn.Parameter], Tensor | None]:
    """What the optimizer keeps under `name` for a parameter."""
    return lambda parameter: optimizer.state[parameter].get(name)


def batch_loss(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(torch.randn(16, 6)), torch.randint(3, (16,)))


def steps(model: nn.Module, optimizer: Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss(model))
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_thousand_steps_leave_nothing_off_the_mask(kind: str) -> None:
    model = mlp()
    mask = sparse_mask(model)
    optimizer = OPTIMIZERS[kind](model)
    with MaskHook(model, mask):
        steps(model, optimizer, 1000 if kind == "sgd" else 60)
    assert off_mask(model, mask, lambda p: p) == 0
    for moment in ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg"):
        assert off_mask(model, mask, remembered(optimizer, moment)) == 0


def test_without_the_hook_weights_do_revive() -> None:
    model = mlp()
    mask = sparse_mask(model)
    with MaskHook(model, mask):
        pass
    assert off_mask(model, mask, lambda p: p) == 0
    steps(model, OPTIMIZERS["sgd"](model), 1)
    assert off_mask(model, mask, lambda p: p) > 0


def test_an_optimizer_that_comes_with_a_memory_loses_it_off_the_mask() -> None:
    model = mlp()
    mask = sparse_mask(model)
    optimizer = OPTIMIZERS["adamw"](model)
    steps(model, optimizer, 3)
    assert off_mask(model, mask, remembered(optimizer, "exp_avg")) > 0
    with MaskHook(model, mask):
        steps(model, optimizer, 1)
        assert off_mask(model, mask, lambda p: p) == 0
    assert off_mask(model, mask, remembered(optimizer, "exp_avg")) == 0
    assert off_mask(model, mask, remembered(optimizer, "exp_avg_sq")) == 0


def test_alive_weights_move_exactly_as_the_masked_gradient_says() -> None:
    model = mlp()
    mask = sparse_mask(model)
    with MaskHook(model, mask):
        torch.autograd.backward(batch_loss(model))
        weight = model.get_parameter("2.weight")
        assert weight.grad is not None
        before, gradient = weight.detach().clone(), weight.grad.clone()
        SGD(model.parameters(), lr=0.5).step()
    alive = torch.from_numpy(mask.alive["2.weight"])
    assert int(torch.count_nonzero(gradient[~alive])) == 0
    assert torch.equal(weight.detach(), before - 0.5 * gradient)
    assert int(torch.count_nonzero(gradient[alive])) == int(alive.sum())


def test_a_gradient_clipped_before_the_step_counts_only_what_is_alive() -> None:
    model = mlp()
    mask = sparse_mask(model, density=0.1)
    with MaskHook(model, mask):
        torch.autograd.backward(batch_loss(model))
        assert off_mask(model, mask, lambda p: p.grad) == 0


def test_a_gradient_set_by_hand_is_masked_before_the_step() -> None:
    model = mlp()
    mask = sparse_mask(model)
    optimizer = OPTIMIZERS["adamw"](model)
    with MaskHook(model, mask):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert off_mask(model, mask, lambda p: p) == 0
    assert off_mask(model, mask, remembered(optimizer, "exp_avg")) == 0


def test_weights_changed_without_an_optimizer_are_masked_at_the_end() -> None:
    model = mlp()
    mask = sparse_mask(model)
    with MaskHook(model, mask), torch.no_grad():
        model.get_parameter("0.weight").fill_(1.0)
    assert off_mask(model, mask, lambda p: p) == 0


def test_another_model_is_left_alone_and_so_is_this_one_afterwards() -> None:
    model, other = mlp(), mlp()
    mask = sparse_mask(model)
    with MaskHook(model, mask):
        steps(other, OPTIMIZERS["sgd"](other), 1)
    assert off_mask(other, mask, lambda p: p) > 0
    steps(model, OPTIMIZERS["sgd"](model), 1)
    assert off_mask(model, mask, lambda p: p) > 0


def test_a_full_mask_changes_nothing() -> None:
    plain, hooked = mlp(), mlp()
    hooked.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    steps(plain, OPTIMIZERS["sgd"](plain), 5)
    torch.manual_seed(1)
    with MaskHook(hooked, Mask.full(signature(hooked))):
        steps(hooked, OPTIMIZERS["sgd"](hooked), 5)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), hooked.parameters(), strict=True))
