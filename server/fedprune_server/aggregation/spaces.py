"""Where the values of one tensor belong: the space of a fold is what the run's mask has alive, end to end.

With one mask for all, an update's packed values are that space and nothing is ever looked up. A client with a mask
of its own, or one that sends only some of its weights, has its places translated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fedprune.codec import Content, Packed
from fedprune.errors import UpdateError
from fedprune.mask import Bits, Indices, Mask
from fedprune.tensor import Role, TensorSpec
from fedprune_server.aggregation.fixed import BLOCK, Array, Deltas, Floats
from fedprune_server.aggregation.inputs import Arrays, FoldInput


@dataclass(slots=True, kw_only=True)
class Space:
    """One tensor. `alive` are the flat places that are folded, None for all; `base` [n] their values, as numbers."""

    spec: TensorSpec
    alive: Indices | None
    base: Array
    _ranks: Indices | None = field(default=None, repr=False)

    @classmethod
    def of(cls, spec: TensorSpec, base: Arrays, mask: Mask) -> Space:
        """The space of a tensor under the run's mask."""
        values = numbers(base[spec.name].reshape(-1), spec)
        alive = mask.places(spec.name) if spec.role is Role.PRUNABLE else None
        return cls(spec=spec, alive=alive, base=values if alive is None else values.take(alive))

    @property
    def size(self) -> int:
        """Number of places n."""
        return self.base.size

    def pack(self, dense: Array) -> Array:
        """Of a tensor's values [size of the tensor], those at the places of this space [n]."""
        return dense if self.alive is None else dense.take(self.alive)

    def spread(self, packed: Array) -> Array:
        """The other way: the tensor's values, zero elsewhere."""
        if self.alive is None:
            return packed
        dense = np.zeros(self.spec.size, packed.dtype)
        dense[self.alive] = packed
        return dense

    def deltas(self, update: FoldInput, packed: Packed) -> Deltas:
        """What the update says about this tensor. Raises `UpdateError` when it does not fit."""
        values = numbers(packed.values, self.spec)
        held = None if update.mask is None or self.spec.role is not Role.PRUNABLE else update.mask
        own = self.alive if held is None else held.indices(self.spec.name)
        is_values = update.content is Content.WEIGHTS or self.spec.role is Role.BUFFER
        given = packed.indices
        if given is not None and is_values:
            values, given = self._filled(values, given, own), None
        expected = given.size if given is not None else self.spec.size if own is None else own.size
        if values.size != expected:
            raise UpdateError(
                f"wrong number of values in {self.spec.name!r}", party=update.party, seen=values.size, expected=expected
            )
        holders = None if held is None else self._places(own)[0]
        positions: Indices | None = None
        if given is not None or held is not None:
            positions, kept = self._places(own if given is None else given)
            values = values if kept is None else values[kept]
        return Deltas(
            values=values,
            base=None if not is_values else self.base if positions is None else self.base.take(positions),
            factor=1.0 if self.spec.role is Role.BUFFER else update.factor,
            positions=positions,
            holders=holders,
            examples=update.examples,
            party=update.party,
            nearest=update.nearest,
        )

    def _filled(self, values: Array, given: Indices, own: Indices | None) -> Array:
        """Values that were left out because they are zero, put back."""
        dense = np.zeros(self.spec.size, values.dtype)
        dense[given] = values
        return dense if own is None else dense.take(own)

    def _places(self, flat: Indices | None) -> tuple[Indices, Bits | None]:
        """Flat places of the tensor as places of the space; the second says which of them have one, None for all."""
        assert flat is not None
        if self.alive is None:
            return flat, None
        if self._ranks is None:
            self._ranks = np.full(self.spec.size, -1, np.intp)
            self._ranks[self.alive] = np.arange(self.alive.size)
        places = self._ranks.take(flat)
        kept = places >= 0
        return (places, None) if kept.all() else (places[kept], kept)

    def moved(self, step: Floats) -> Array:
        """The tensor after `step` [n], in its shape and dtype. Raises `UpdateError` when it leaves the dtype's range."""
        new = np.empty(self.size, np.float32 if self.spec.dtype == "bfloat16" else self.spec.numpy_dtype)
        most = float(np.finfo(new.dtype).max)
        for start in range(0, self.size, BLOCK):
            part = slice(start, min(start + BLOCK, self.size))
            block = self.base[part].astype(np.float64)
            block += step[part]
            if not max(block.max(), -block.min()) <= most:
                raise UpdateError(f"the model leaves the range of {self.spec.dtype} in tensor {self.spec.name!r}")
            np.copyto(new[part], block, casting="same_kind")
        return self.spread(_as_stored(new, self.spec)).reshape(self.spec.shape)


def numbers(values: Array, spec: TensorSpec) -> Array:
    """Values that can be calculated with: bit patterns of bfloat16 become float32, everything else stays."""
    if spec.dtype == "bfloat16" and values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _as_stored(values: Array, spec: TensorSpec) -> Array:
    """Float32 as the bit patterns of bfloat16, to nearest, ties to even; other dtypes stay."""
    if spec.dtype != "bfloat16":
        return values
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
