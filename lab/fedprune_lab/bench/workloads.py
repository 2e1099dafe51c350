"""What the codec is measured on: masks, weights and updates of nets that were trained here, a file for each net.

Training takes minutes and measuring seconds, so what was trained is kept. Each file holds, for one net: the weights
of a version and of a client after its local steps, dense and under magnitude masks (gradual, with fine-tuning
between); a client's dense difference for top-k; masks that moved by a round's drift and by dropping and growing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from fedprune.mask import Bits, Mask
from fedprune.tensor import NUMPY_DTYPES, Role, Schema, TensorSpec
from fedprune_lab.bench.nets import NETS, Net

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001)
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One client round: `base` is the version it started from, `local` what it has after its steps."""

    mask: Mask
    base: Arrays
    local: Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything measured of one net. `rounds` by density; `drift` and `regrown` are masks that follow `rounds[0.1]`;
    `top` is a dense client difference with the residual of two rounds in it."""

    name: str
    schema: Schema
    rounds: Mapping[float, Round]
    drift: Mask
    regrown: Mask
    top: Arrays


def load(name: str, folder: Path, *, seed: int = 1) -> Workload:
    """The workload of a net of `NETS`, trained first where `folder` does not have it yet."""
    path = folder / f"{name}-{seed}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part.npz")
        np.savez(fresh, **dict(_pack(_make(NETS[name](seed), seed))))  # type: ignore[arg-type]  # its stub knows only bool
        fresh.rename(path)
    with np.load(path) as data:
        return _unpack(name, NETS[name](seed), {key: data[key] for key in data.files})


def schema_of(model: nn.Module) -> Schema:
    """Matrices and kernels are prunable, other parameters free, statistics buffers, integers counters."""
    trained = {name for name, _ in model.named_parameters()}
    specs = []
    for name, tensor in model.state_dict().items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        role = Role.PRUNABLE if tensor.dim() > 1 else Role.FREE
        if name not in trained:
            role = Role.BUFFER if tensor.is_floating_point() else Role.COUNTER
        specs.append(TensorSpec(name=name, shape=tuple(tensor.shape), dtype=dtype, role=role))
    return Schema(tensors=tuple(specs))


def magnitude_mask(weights: Mapping[str, NDArray[np.generic]], within: Mask, density: float) -> Mask:
    """The largest weights of every tensor, each tensor at this density, among those alive in `within`."""
    alive: dict[str, Bits] = {}
    for spec in within.schema.prunable:
        sizes = np.abs(weights[spec.name].reshape(-1)) * within.alive[spec.name].reshape(-1)
        bits = np.zeros(spec.size, np.bool_)
        bits[np.argpartition(sizes, -_kept(spec, density))[-_kept(spec, density) :]] = True
        alive[spec.name] = bits.reshape(spec.shape)
    return Mask(schema=within.schema, version=within.version + 1, alive=alive)


def _kept(spec: TensorSpec, density: float) -> int:
    return max(1, round(spec.size * density))


def _make(net: Net, seed: int) -> Workload:
    rng = np.random.default_rng(seed)
    schema = schema_of(net.model)
    mask = Mask.full(schema)
    _train(net, net.steps, rng, mask, client=None)
    rounds = {1.0: _client_round(net, rng, mask)}
    top = _top(net, rng, mask)
    for density in DENSITIES:
        mask = magnitude_mask(_arrays(net.model), mask, density)
        _train(net, 2 * net.client_steps, rng, mask, client=None)
        rounds[density] = _client_round(net, rng, mask)
        if density == 0.1:
            drift, regrown = _drift(net, rng, mask), _regrow(net, rng, mask)
    return Workload(name=net.name, schema=schema, rounds=rounds, drift=drift, regrown=regrown, top=top)


def _train(net: Net, steps: int, rng: np.random.Generator, mask: Mask, client: int | None) -> None:
    """SGD or Adam steps under the mask; `client` None alternates between the two."""
    weights = net.model.parameters()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(weights, net.learning_rate, momentum=0.9)
    if net.adam:
        optimizer = torch.optim.Adam(net.model.parameters(), net.learning_rate)
    bits = {name: torch.from_numpy(alive) for name, alive in mask.alive.items()}
    for step in range(steps):
        inputs, labels = net.draw(step if client is None else client, rng)
        optimizer.zero_grad()
        logits = net.model(inputs)
        functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)).backward()
        optimizer.step()
        with torch.no_grad():
            for name, weight in net.model.named_parameters():
                if name in bits:
                    weight.masked_fill_(~bits[name], 0)


def _client_round(net: Net, rng: np.random.Generator, mask: Mask) -> Round:
    with torch.no_grad():
        for name, weight in net.model.named_parameters():
            if name in mask.alive:
                weight.masked_fill_(~torch.from_numpy(mask.alive[name]), 0)
    base = _arrays(net.model)
    _train(net, net.client_steps, rng, mask, client=0)
    local = _arrays(net.model)
    _restore(net.model, base)
    return Round(mask=mask, base=base, local=local)


def _top(net: Net, rng: np.random.Generator, mask: Mask) -> Arrays:
    """A dense difference plus what top-1 % selection left out of the two before it."""
    residual: Arrays = {}
    for _ in range(3):
        turn = _client_round(net, rng, mask)
        for spec in mask.schema.prunable:
            step = np.subtract(turn.local[spec.name], turn.base[spec.name])
            residual[spec.name] = np.add(step, residual.get(spec.name, np.float32(0)))
        top = {name: array.copy() for name, array in residual.items()}
        for array in residual.values():
            flat = array.reshape(-1)
            flat[np.argpartition(np.abs(flat), -max(1, flat.size // 100))[-max(1, flat.size // 100) :]] = 0
        _restore(net.model, turn.local)
    return top


def _drift(net: Net, rng: np.random.Generator, mask: Mask) -> Mask:
    """The magnitude mask of the same density after a dense step: what a round's movement changes."""
    saved = _arrays(net.model)
    before = {name: array.copy() for name, array in saved.items()}
    _train(net, net.client_steps, rng, Mask.full(mask.schema), client=None)
    moved = magnitude_mask(_arrays(net.model), Mask.full(mask.schema), mask.density)
    _restore(net.model, before)
    return moved


def _regrow(net: Net, rng: np.random.Generator, mask: Mask) -> Mask:
    """Drop the smallest tenth of the alive weights, grow as many where the gradient is largest."""
    inputs, labels = net.draw(0, rng)
    net.model.zero_grad()
    logits = net.model(inputs)
    functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)).backward()
    alive: dict[str, Bits] = {}
    for name, weight in net.model.named_parameters():
        if name not in mask.alive:
            continue
        bits = mask.alive[name].reshape(-1).copy()
        gradient = np.zeros(bits.size) if weight.grad is None else np.abs(weight.grad.numpy().reshape(-1))
        sizes = np.where(bits, np.abs(weight.detach().numpy().reshape(-1)), np.inf)
        moved = int(bits.sum()) // 10
        grown = np.argsort(np.where(bits, -1, gradient))[bits.size - moved :]
        bits[np.argsort(sizes)[:moved]] = False
        bits[grown] = True
        alive[name] = bits.reshape(mask.alive[name].shape)
    return Mask(schema=mask.schema, version=mask.version + 1, alive=alive)


def _arrays(model: nn.Module) -> Arrays:
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def _restore(model: nn.Module, arrays: Arrays) -> None:
    model.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()})


def _pack(work: Workload) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for density, turn in work.rounds.items():
        for name, bits in turn.mask.alive.items():
            yield f"mask/{density}/{name}", np.packbits(bits)
        for side, arrays in (("base", turn.base), ("local", turn.local)):
            for name, array in arrays.items():
                alive = turn.mask.alive.get(name)
                yield f"{side}/{density}/{name}", array.reshape(-1) if alive is None else array[alive]
    for kind, mask in (("drift", work.drift), ("regrown", work.regrown)):
        for name, bits in mask.alive.items():
            yield f"{kind}/{name}", np.packbits(bits)
    for name, array in work.top.items():
        yield f"top/{name}", array


def _unpack(name: str, net: Net, data: Mapping[str, NDArray[np.generic]]) -> Workload:
    schema = schema_of(net.model)
    rounds = {}
    for density in (1.0, *DENSITIES):
        mask = _mask(schema, data, f"mask/{density}")
        base, local = (
            {spec.name: _whole(spec, data[f"{side}/{density}/{spec.name}"], mask) for spec in schema}
            for side in ("base", "local")
        )
        rounds[density] = Round(mask=mask, base=base, local=local)
    top = {spec.name: data[f"top/{spec.name}"] for spec in schema.prunable}
    drift, regrown = _mask(schema, data, "drift"), _mask(schema, data, "regrown")
    return Workload(name=name, schema=schema, rounds=rounds, drift=drift, regrown=regrown, top=top)


def _mask(schema: Schema, data: Mapping[str, NDArray[np.generic]], prefix: str) -> Mask:
    alive = {}
    for spec in schema.prunable:
        packed = data[f"{prefix}/{spec.name}"].astype(np.uint8)
        alive[spec.name] = np.unpackbits(packed, count=spec.size).view(np.bool_).reshape(spec.shape)
    return Mask(schema=schema, version=0, alive=alive)


def _whole(spec: TensorSpec, values: NDArray[np.generic], mask: Mask) -> NDArray[np.generic]:
    out = np.zeros(spec.shape, NUMPY_DTYPES[spec.dtype])
    if spec.role is Role.PRUNABLE:
        out[mask.alive[spec.name]] = values
    else:
        out.reshape(-1)[:] = values
    return out
