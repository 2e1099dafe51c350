"""What clients find out about weights, as frames of the codec: scores of those alive, votes for those pruned, and masks.

Both are updates over the prunable tensors alone, float32 whatever the model holds, so that no second format has to be
specified, limited and attacked: scores travel on the mask, votes on its complement, where only what is asked for is
not zero. Under a ternary plan a vote says where, and nothing else. A mask that a client proposes is a mask set against
the one in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import (
    Content,
    Limits,
    Packed,
    Plan,
    UpdateReader,
    decode_mask_set,
    encode_mask_set,
    encode_update,
)
from fedprune.errors import DecodeError, VersionError
from fedprune.mask import Indices, Mask
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune.work import UploadPlan

Floats = NDArray[np.float32]
Items = Iterator[tuple[TensorSpec, Packed]]
# Under these values a vote carries no gradient.
PLACES_ONLY = "ternary"


def score_schema(schema: Schema) -> Schema:
    """The tensors that scores are about."""
    return Schema(tensors=tuple(TensorSpec(name=t.name, shape=t.shape) for t in schema.prunable))


def encode_scores(scores: Mapping[str, Floats], mask: Mask, plan: UploadPlan, version: Version) -> bytes:
    """The scores of what is alive in `mask`, as `plan` says; `scores[name]` has the tensor's shape."""
    return encode_update(scores, schema=score_schema(mask.schema), plan=_plan(plan), mask=_alive(mask), version=version)


def encode_growth(
    places: Mapping[str, Indices], gradients: Mapping[str, Floats], mask: Mask, plan: UploadPlan, version: Version
) -> bytes:
    """What a client would grow: by tensor flat positions among the weights that are dead in `mask`, and their
    gradients. A weight without any gradient gets no vote."""
    dead = _dead(mask)
    arrays = {t.name: np.zeros(t.shape, np.float32) for t in dead.schema}
    for name, at in places.items():
        values = gradients[name]
        arrays[name].reshape(-1)[at] = values != 0 if plan.values == PLACES_ONLY else values
    return encode_update(arrays, schema=dead.schema, plan=_plan(plan, sparse=True), mask=dead, version=version)


def read_scores(data: memoryview, mask: Mask, version: Version) -> Whole:
    """The scores in a frame. Raises `RemoteError` where it is no frame, or about another mask or version."""
    alive = _alive(mask)
    reader = _reader(data, alive, version)
    return Whole(alive, lambda: iter(reader))


def read_growth(data: memoryview, mask: Mask, version: Version) -> tuple[dict[str, Indices], dict[str, Floats]]:
    """By tensor the flat positions that a client voted for, ascending, and the gradients there."""
    dead = _dead(mask)
    places, gradients = {}, {}
    for spec, packed in _reader(data, dead, version):
        at = dead.indices(spec.name) if packed.indices is None else packed.indices
        voted = packed.values != 0
        places[spec.name], gradients[spec.name] = at[voted], packed.values[voted].astype(np.float32, copy=False)
    return places, gradients


def encode_proposal(proposed: Mask, mask: Mask) -> bytes:
    """A mask that a client proposes, as what it changes of `mask`."""
    return encode_mask_set(proposed, base=mask)


def read_proposal(data: memoryview, mask: Mask) -> Mask:
    """The mask in a frame, under the version after that of `mask`. Raises `RemoteError` where there is none."""
    limits = Limits.of_mask(mask.schema)
    return decode_mask_set(data, schema=mask.schema, version=mask.version + 1, base=mask, limits=limits)


class Whole(Mapping[str, NDArray[Any]]):
    """The prunable tensors of a frame by name, of their shapes and dtypes, zero off the mask; each is decoded when it is asked for. Asked in the
    order of the schema a frame is read once, and one tensor is in memory at a time."""

    def __init__(self, mask: Mask, open_: Callable[[], Items]) -> None:
        self._mask = mask
        self._open = open_
        self._rest = open_()

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._mask.alive:
            raise KeyError(name)
        found = self._next(name)
        if found is None:
            self._rest = self._open()
            found = self._next(name)
        if found is None:
            raise DecodeError(f"a frame without tensor {name!r}")
        return found

    def spec(self, name: str) -> TensorSpec:
        """What tensor it is."""
        return self._mask.schema[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mask.alive)

    def __len__(self) -> int:
        return len(self._mask.alive)

    def _next(self, name: str) -> NDArray[Any] | None:
        for spec, packed in self._rest:
            if spec.name == name:
                array = np.zeros(spec.size, spec.numpy_dtype)
                array[self._mask.indices(name) if packed.indices is None else packed.indices] = packed.values
                return array.reshape(spec.shape)
        return None


def _plan(plan: UploadPlan, *, sparse: bool = False) -> Plan:
    return Plan(values=plan.values, sparse=sparse, rng=np.random.default_rng(plan.seed))


def _alive(mask: Mask) -> Mask:
    return Mask(schema=score_schema(mask.schema), version=mask.version, alive=mask.alive)


def _dead(mask: Mask) -> Mask:
    alive = {name: ~bits for name, bits in mask.alive.items()}
    return Mask(schema=score_schema(mask.schema), version=mask.version, alive=alive)


def _reader(data: memoryview, mask: Mask, version: Version) -> UpdateReader:
    reader = UpdateReader(data, schema=mask.schema, mask=mask, limits=Limits.of_update(mask.schema, mask))
    if reader.content is not Content.WEIGHTS:
        raise DecodeError("scores are values, not differences", seen=reader.content)
    if reader.version != version:
        raise VersionError("scores of another version than assigned", seen=reader.version, expected=version)
    return reader
