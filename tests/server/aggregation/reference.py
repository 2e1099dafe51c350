"""Slow and obvious: what a fold should give, in exact fractions and plain loops, and updates to try it on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Content, Packed
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.aggregation import FoldInput

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Local weights after training, the number of examples, and a mask of its own where it has one."""

    weights: Arrays
    examples: int
    mask: Mask | None = None
    name: str = "client"


def packed(array: Array, spec: TensorSpec, mask: Mask | None) -> Packed:
    """What travels of one tensor under this mask, positions known to both ends."""
    flat = array.reshape(-1)
    if mask is None or spec.role is not Role.PRUNABLE:
        return Packed(None, flat)
    return Packed(None, flat.take(mask.indices(spec.name)))


def as_input(client: Client, schema: Schema, mask: Mask, *, base: Arrays | None = None) -> FoldInput:
    """The client's weights as the aggregator sees them; with `base`, as differences to it."""

    def opened() -> Iterator[tuple[TensorSpec, Packed]]:
        for spec in schema:
            array = client.weights[spec.name]
            if base is not None and spec.role in (Role.PRUNABLE, Role.FREE):
                array = np.asarray(array, np.float32) - np.asarray(base[spec.name], np.float32)
            yield spec, packed(array, spec, client.mask or mask)

    return FoldInput(
        examples=client.examples,
        content=Content.WEIGHTS if base is None else Content.DELTA,
        open=opened,
        party=client.name,
        mask=client.mask,
    )


def sparse(given: FoldInput, schema: Schema, mask: Mask, keep: Mapping[str, Array]) -> FoldInput:
    """The same differences, but only those at the places where `keep` is true travel, with their positions."""

    def opened() -> Iterator[tuple[TensorSpec, Packed]]:
        for spec, whole in given.open():
            if spec.role not in (Role.PRUNABLE, Role.FREE):
                yield spec, whole
                continue
            own = given.mask or mask
            flat = own.indices(spec.name) if spec.role is Role.PRUNABLE else np.arange(spec.size)
            wanted = keep[spec.name].reshape(-1)[flat]
            yield spec, Packed(flat[wanted], whole.values[wanted])

    return FoldInput(examples=given.examples, content=Content.DELTA, open=opened, party=given.party, mask=given.mask)


def averaged(
    schema: Schema, base: Arrays, mask: Mask, clients: Sequence[Client], rate: float = 1.0
) -> dict[str, Array]:
    """Federated averaging, weight by weight, in fractions: only the last step rounds."""
    return {
        spec.name: _averaged(spec, base, mask, clients, rate if spec.role is not Role.BUFFER else 1.0)
        for spec in schema
        if spec.role is not Role.COUNTER
    }


def _averaged(spec: TensorSpec, base: Arrays, mask: Mask, clients: Sequence[Client], rate: float) -> Array:
    out = np.array(base[spec.name], np.float64).reshape(-1)
    prunable = spec.role is Role.PRUNABLE
    alive = mask.alive[spec.name].reshape(-1) if prunable else np.ones(spec.size, bool)
    for j in np.flatnonzero(alive):
        holders = [c for c in clients if not prunable or (c.mask or mask).alive[spec.name].reshape(-1)[j]]
        total = sum(c.examples for c in holders)
        if total:
            moved = [c.examples * (_exact(c.weights[spec.name], j) - _exact(base[spec.name], j)) for c in holders]
            out[j] = float(_exact(base[spec.name], j) + Fraction(rate) * sum(moved) / total)
    return out.reshape(spec.shape)


def _exact(array: Array, place: np.intp) -> Fraction:
    return Fraction(float(array.reshape(-1)[place]))


def small_schema(*, width: int = 5, statistics: bool = False) -> Schema:
    """A matrix, a bias and a protected matrix; with `statistics` a normalisation layer's buffers, too."""
    specs = [
        TensorSpec(name="a.weight", shape=(4, width)),
        TensorSpec(name="a.bias", shape=(4,), role=Role.FREE),
        TensorSpec(name="head", shape=(2, 3), role=Role.FREE),
    ]
    if statistics:
        specs += [
            TensorSpec(name="n.running_mean", shape=(4,), role=Role.BUFFER),
            TensorSpec(name="n.running_var", shape=(4,), role=Role.BUFFER),
            TensorSpec(name="n.num_batches_tracked", shape=(), dtype="int64", role=Role.COUNTER),
        ]
    return Schema(tensors=tuple(specs))


def some_base(schema: Schema, rng: np.random.Generator, mask: Mask | None = None) -> dict[str, Array]:
    """Weights around zero, variances above it, zero off the mask."""
    arrays: dict[str, Array] = {}
    for spec in schema:
        if spec.role is Role.COUNTER:
            arrays[spec.name] = np.asarray(rng.integers(0, 9, spec.shape)).astype(spec.numpy_dtype)
        else:
            drawn = np.asarray(rng.standard_normal(spec.shape) * 0.1)
            arrays[spec.name] = (np.abs(drawn) if "var" in spec.name else drawn).astype(np.float32)
    if mask is not None:
        mask.apply(arrays)
    return arrays


def some_clients(
    schema: Schema, base: Arrays, mask: Mask, rng: np.random.Generator, count: int, *, own_masks: bool = False
) -> list[Client]:
    """Clients that moved a little from the base, under the run's mask or subsets of it."""
    clients = []
    for k in range(count):
        own = some_mask(schema, rng, within=mask) if own_masks else None
        weights = {name: np.array(array) for name, array in base.items()}
        for spec in schema:
            if spec.role is Role.COUNTER:
                weights[spec.name] = weights[spec.name] + np.asarray(k).astype(spec.numpy_dtype)
            else:
                step = np.asarray(rng.standard_normal(spec.shape) * 0.01)
                weights[spec.name] = (weights[spec.name] + np.abs(step)).astype(np.float32)
        (own or mask).apply(weights)
        clients.append(Client(weights=weights, examples=int(rng.integers(1, 1000)), mask=own, name=f"client {k}"))
    return clients


def some_mask(schema: Schema, rng: np.random.Generator, *, density: float = 0.5, within: Mask | None = None) -> Mask:
    """A random mask, nested in another one where that is given."""
    alive = {}
    for spec in schema.prunable:
        bits = rng.random(spec.shape) < density
        alive[spec.name] = bits & within.alive[spec.name] if within else bits
    return Mask(schema=schema, version=1, alive=alive)


def same_bits(one: Arrays, other: Arrays) -> bool:
    """Whether two models are equal bit for bit."""
    return list(one) == list(other) and all(one[n].tobytes() == other[n].tobytes() for n in one)


def assert_close(one: Array, other: Array, *, rtol: float, atol: float = 0.0) -> None:
    """Equal within these tolerances."""
    np.testing.assert_allclose(np.asarray(one, np.float64), np.asarray(other, np.float64), rtol=rtol, atol=atol)
