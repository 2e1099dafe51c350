"""A set of places in an index space, as bits or as indices: whichever is at hand, the other when asked for."""

from __future__ import annotations

import numpy as np

from fedprune.mask import Bits, Indices, PackedBits


class Places:
    """`bits` [size], `packed` [size / 8] and `indices` [count] ascending say the same; each is made from another once,
    when needed."""

    __slots__ = ("_bits", "_indices", "_packed", "count", "size")

    def __init__(
        self, *, size: int, count: int, bits: Bits | None, indices: Indices | None, packed: PackedBits | None = None
    ) -> None:
        self.size = size
        self.count = count
        self._bits = bits
        self._indices = indices
        self._packed = packed

    @classmethod
    def of_bits(cls, bits: Bits) -> Places:
        """From a flat boolean array."""
        return cls(size=bits.size, count=int(np.count_nonzero(bits)), bits=bits, indices=None)

    @classmethod
    def of_indices(cls, indices: Indices, size: int) -> Places:
        """From ascending flat indices below `size`."""
        return cls(size=size, count=indices.size, bits=None, indices=indices)

    @classmethod
    def everything(cls, size: int) -> Places:
        """All places of the space."""
        return cls(size=size, count=size, bits=np.ones(size, np.bool_), indices=None)

    @property
    def bits(self) -> Bits:
        """One truth value a place [size]."""
        if self._bits is None:
            self._bits = np.zeros(self.size, np.bool_)
            self._bits[self.indices] = True
        return self._bits

    @property
    def packed(self) -> PackedBits:
        """The bits, eight to a byte."""
        if self._packed is None:
            self._packed = np.packbits(self.bits)
        return self._packed

    @property
    def indices(self) -> Indices:
        """The places themselves [count], ascending."""
        if self._indices is None:
            self._indices = np.flatnonzero(self.bits)
        return self._indices
