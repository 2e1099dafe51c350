"""A model becomes named arrays and back without losing a bit, and what cannot travel is told by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedprune.errors import LocalError, TaskError
from fedprune.task import load_task
from fedprune.torch import build_model, frozen_digest, load_arrays, seeded, signature, to_arrays

WriteTask = Callable[..., Path]


class Everything(nn.Module):
    """Parameters of several dtypes, a norm, a tied and a frozen weight, buffers kept and not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.brain = nn.Parameter(torch.randn(3, 3).to(torch.bfloat16))
        self.wide = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.Parameter(torch.randn(2, 2), requires_grad=False)
        self.same = nn.Linear(4, 3, bias=False)
        self.same.weight = self.first.weight
        self.register_buffer("seen", torch.tensor([True, False]))
        self.register_buffer("scratch", torch.zeros(5), persistent=False)


def test_what_travels_is_in_state_dict_order_once_and_trainable() -> None:
    schema = signature(Everything())
    assert [t.name for t in schema] == [
        "brain",
        "wide",
        "seen",
        "first.weight",
        "first.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    ]
    assert [schema[n].dtype for n in ("brain", "wide", "seen")] == ["bfloat16", "float64", "bool"]


def test_arrays_come_back_bit_for_bit() -> None:
    torch.manual_seed(1)
    one, other = Everything(), Everything()
    schema = signature(one)
    arrays = to_arrays(one, schema)
    load_arrays(other, schema, arrays)
    again = to_arrays(other, schema)
    for spec in schema:
        assert arrays[spec.name].dtype == spec.numpy_dtype
        assert arrays[spec.name].shape == spec.shape
        assert arrays[spec.name].tobytes() == again[spec.name].tobytes()
    assert torch.equal(other.brain, one.brain)
    assert torch.equal(other.same.weight, one.first.weight)
    assert not torch.equal(other.frozen, one.frozen)


def test_arrays_are_copies() -> None:
    model = nn.Linear(2, 2)
    arrays = to_arrays(model, signature(model))
    nn.init.zeros_(model.weight)
    assert arrays["weight"].any()


def test_other_memory_layouts_come_out_contiguous_and_go_back() -> None:
    model = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads
    schema = signature(model)
    arrays = to_arrays(model, schema)
    assert arrays["weight"].flags.c_contiguous
    before = arrays["weight"].copy()
    nn.init.zeros_(model.weight)
    assert np.array_equal(arrays["weight"], before)
    load_arrays(model, schema, arrays)
    assert np.array_equal(model.weight.detach().numpy(), before)


def test_read_only_arrays_can_be_loaded() -> None:
    model = nn.Linear(2, 2)
    arrays = to_arrays(model, signature(model))
    frozen = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in arrays.items()}
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    load_arrays(model, signature(model), frozen)
    assert all(np.array_equal(array, frozen[name]) for name, array in to_arrays(model, signature(model)).items())


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [(None, "nothing"), (np.zeros((2, 3), np.float32), r"float32 \[2, 3\]"), (np.zeros((2, 2)), r"float64 \[2, 2\]")],
)
def test_an_array_that_does_not_fit_is_named(wrong: np.ndarray | None, seen: str) -> None:
    model = nn.Linear(2, 2)
    schema = signature(model)
    arrays = to_arrays(model, schema)
    arrays.pop("weight")
    if wrong is not None:
        arrays["weight"] = wrong
    with pytest.raises(LocalError, match=rf"array 'weight' does not fit.*got {seen}, expected float32 \[2, 2\]"):
        load_arrays(model, schema, arrays)


def with_buffer(value: torch.Tensor) -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("odd", value)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (with_buffer(torch.zeros(2, dtype=torch.complex64)), "'odd' has a dtype that cannot travel.*complex64"),
        (with_buffer(torch.zeros(2, dtype=torch.float8_e4m3fn)), "'odd' has a dtype that cannot travel.*float8"),
        (with_buffer(torch.eye(2).to_sparse()), "'odd' has no plain values.*sparse_coo"),
        (nn.Linear(2, 2, device="meta"), "'weight' has no plain values.*meta"),
        (nn.ReLU(), "no parameter of the model requires a gradient"),
        (nn.Linear(2, 2).requires_grad_(False), "no parameter of the model requires a gradient"),
    ],
)
def test_what_cannot_travel_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        signature(model)


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_a_quantised_buffer_is_named() -> None:
    odd = torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)
    with pytest.raises(TaskError, match=r"'odd' has a dtype that cannot travel.*qint8"):
        signature(with_buffer(odd))


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_layer_is_named() -> None:
    with pytest.raises(TaskError, match=r"'0.weight' has no shape yet. Run one batch"):
        signature(nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2)))


def test_the_frozen_digest_sees_values_and_nothing_that_travels() -> None:
    model = Everything()
    before = frozen_digest(model)
    nn.init.zeros_(model.first.weight)
    assert frozen_digest(model) == before
    nn.init.zeros_(model.frozen)
    assert frozen_digest(model) != before
    assert frozen_digest(nn.Linear(2, 2)) == ""


def test_seeded_repeats_and_leaves_the_generators_as_they_were() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    expected = (torch.rand(1), np.random.rand(), random.random())
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    with seeded(1 << 63):
        inside = (torch.rand(1), np.random.rand(), random.random())
    with seeded(1 << 63):
        assert (torch.rand(1), np.random.rand(), random.random()) == inside
    with pytest.raises(ZeroDivisionError), seeded(2):
        raise ZeroDivisionError
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_a_model_is_built_from_its_seed(write_task: WriteTask) -> None:
    task = load_task(write_task())
    models = [build_model(task, seed=seed) for seed in (1, 1, 2)]
    one, same, other = (to_arrays(m, signature(m))["0.weight"] for m in models)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_what_is_no_module_is_named(write_task: WriteTask) -> None:
    task = load_task(write_task(model="def model():\n    nn.Linear(2, 2)\n"))
    with pytest.raises(TaskError, match=r"task.py: `model` does not return a module \(got NoneType"):
        build_model(task)
