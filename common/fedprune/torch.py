"""The bridge between a torch model and named arrays: the only module of the common room that needs torch.

A model is described once (`signature`), read and written in place (`to_arrays`, `load_arrays`), and kept sparse by
`MaskHook` under any optimizer. Random numbers are drawn only inside `seeded`, which puts the generators back.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.errors import LocalError, TaskError
from fedprune.masking import MaskHook
from fedprune.roles import assign_roles, natural_roles
from fedprune.task import Task
from fedprune.tensor import NUMPY_DTYPES, Schema, TensorSpec

__all__ = [
    "MaskHook",
    "assign_roles",
    "build_model",
    "frozen_digest",
    "load_arrays",
    "seeded",
    "signature",
    "to_arrays",
]

Arrays = dict[str, NDArray[Any]]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with the global generators of torch (CPU), numpy and random set from `seed`; put them back after.

    Dropout and augmentation draw from them, and the same work must give the same weights."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed walks the stack: a millisecond a round
    np.random.seed(seed % (1 << 32))
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def build_model(task: Task, *, seed: int = 0) -> nn.Module:
    """The task's model, its random first weights drawn from `seed`. `TaskError` where `model()` gives anything else."""
    with seeded(seed):
        model = task.model()
    if not isinstance(model, nn.Module):
        raise TaskError(
            "`model` does not return a module",
            party=task.path.name,
            seen=type(model).__name__,
            expected="a torch.nn.Module",
            next_step="Check that `model` ends with `return`",
        )
    return model


def signature(model: nn.Module) -> Schema:
    """What of the model travels, in state-dict order, each tensor once however many names it has: parameters that
    require gradients, and buffers that the state dict holds. Roles are the natural ones of `fedprune.roles`.
    `TaskError` for a dtype or layout that cannot travel, and for a model with nothing to train."""
    tensors = _travelling(model)
    if not any(isinstance(t, nn.Parameter) for t in tensors.values()):
        raise TaskError("no parameter of the model requires a gradient", next_step="There is nothing to train")
    for name, tensor in tensors.items():
        _check_can_travel(name, tensor)
    roles = natural_roles(model, tensors)
    return Schema(
        tensors=tuple(
            TensorSpec(name=name, shape=tuple(t.shape), dtype=_dtype_name(t), role=roles[name])
            for name, t in tensors.items()
        )
    )


def to_arrays(model: nn.Module, schema: Schema) -> Arrays:
    """Copies of the tensors of `schema`, C-contiguous, in its order; bfloat16 as bit patterns (uint16)."""
    tensors = _travelling(model)
    return {spec.name: np.array(_host_view(tensors[spec.name]), order="C", copy=True) for spec in schema}


def load_arrays(model: nn.Module, schema: Schema, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of `schema` into the model, in place. `LocalError` where one is missing or of another shape."""
    tensors = _travelling(model)
    for spec in schema:
        array = arrays.get(spec.name)
        if array is None or array.shape != spec.shape or array.dtype != spec.numpy_dtype:
            seen = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            expected = f"{spec.numpy_dtype} {list(spec.shape)}"
            raise LocalError(f"array {spec.name!r} does not fit the model", seen=seen, expected=expected)
        _write(tensors[spec.name], array)


def frozen_digest(model: nn.Module) -> str:
    """SHA-256 (hex) over names and bytes of the parameters that do not travel because they require no gradient; empty
    when there are none. Both ends compare it: frozen weights must already be the same."""
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    if not frozen:
        return ""
    digest = hashlib.sha256()
    for name, tensor in frozen.items():
        digest.update(f"{name}\t{tuple(tensor.shape)}\t{_dtype_name(tensor)}\n".encode())
        digest.update(np.ascontiguousarray(_host_view(tensor)).tobytes())
    return digest.hexdigest()


def _travelling(model: nn.Module) -> dict[str, Tensor]:
    """State-dict name -> the live tensor, without frozen parameters, further names of a tied tensor and whatever a
    module keeps that is no tensor."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        if isinstance(tensor, Tensor) and not frozen and id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def _check_can_travel(name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise TaskError(
            f"tensor {name!r} has no shape yet", next_step="Run one batch through the model at the end of `model()`"
        )
    if tensor.is_quantized or _dtype_name(tensor) not in NUMPY_DTYPES:
        raise TaskError(
            f"tensor {name!r} has a dtype that cannot travel",
            seen=_dtype_name(tensor),
            expected=" | ".join(NUMPY_DTYPES),
            next_step="Keep it as another dtype, or register it with persistent=False",
        )
    if tensor.layout is not torch.strided or tensor.is_meta:
        seen = "a meta tensor" if tensor.is_meta else str(tensor.layout)
        raise TaskError(f"tensor {name!r} has no plain values", seen=seen, expected="a dense tensor")


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _host_view(tensor: Tensor) -> NDArray[Any]:
    """The tensor's values as numpy sees them: shared memory where it lives on the CPU."""
    host = tensor.detach().cpu()
    if host.dtype is torch.bfloat16:
        bits: NDArray[Any] = host.view(torch.int16).numpy().view(np.uint16)
        return bits
    array: NDArray[Any] = host.numpy()
    return array


def _write(tensor: Tensor, array: NDArray[Any]) -> None:
    if tensor.device.type == "cpu":
        np.copyto(_host_view(tensor), array)
        return
    host = torch.empty(tensor.shape, dtype=tensor.dtype)
    np.copyto(_host_view(host), array)
    with torch.no_grad():
        tensor.copy_(host)
