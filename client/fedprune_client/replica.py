"""The client's copy of the model: which version it is, and how a part brings it to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedprune.applying import apply_frame
from fedprune.codec import Limits, UpdateReader, decode_mask_set, decode_update
from fedprune.errors import VersionError
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.tensor import Schema, Version


@dataclass(slots=True, kw_only=True)
class Replica:
    """Weights and mask at `version`; empty (None) until the first part. `limits` bound what a part may hold."""

    schema: Schema
    version: Version | None = None
    weights: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    mask: Mask | None = None
    # Whether what is held before a change of the mask is kept until the next one, and which version that is.
    remembers: bool = False
    _before: tuple[Version, dict[str, NDArray[np.generic]]] | None = None

    def remembered(self, version: Version | None) -> dict[str, NDArray[np.generic]] | None:
        """The weights of this version, if it is the one that was held before the mask changed."""
        return self._before[1] if self._before is not None and self._before[0] == version else None

    def max_bytes(self, part: Part) -> int:
        """The most bytes a part of this kind can have."""
        limits = Limits.of_mask(self.schema) if part.kind is PartKind.MASK else Limits.of_update(self.schema)
        return limits.max_bytes

    def apply(self, part: Part, data: memoryview) -> None:
        """Go to the part's version. Raises `RemoteError` when the bytes are no such part; then nothing has changed."""
        if part.base is not None and part.base != self.version:
            raise VersionError(
                "a part that does not follow what we hold", seen=f"made against {part.base}", expected=self.version
            )
        match part.kind:
            case PartKind.MASK:
                self._take_mask(part, data)
                # A mask of its own, without the weights it belongs to, is no version yet.
                self.version = part.version if part.base is not None else None
            case PartKind.MODEL:
                self._take_model(part, data)
                self.version = part.version
            case PartKind.DELTA:
                self._take_delta(part, data)
                self.version = part.version

    def _take_mask(self, part: Part, data: memoryview) -> None:
        base = self.mask if part.base is not None else None
        mask = decode_mask_set(
            data, schema=self.schema, version=part.version.mask, base=base, limits=Limits.of_mask(self.schema)
        )
        if self.weights and part.base is not None:
            if self.remembers and self.version is not None:
                self._before = (self.version, {name: np.array(array) for name, array in self.weights.items()})
            mask.apply(self.weights)
        self.mask = mask

    def _take_model(self, part: Part, data: memoryview) -> None:
        limits = Limits.of_update(self.schema, self.mask)
        self.weights = decode_update(data, schema=self.schema, mask=self._mask_of(part), limits=limits)

    def _take_delta(self, part: Part, data: memoryview) -> None:
        limits = Limits.of_update(self.schema, self.mask)
        reader = UpdateReader(data, schema=self.schema, mask=self._mask_of(part), base=self.weights, limits=limits)
        apply_frame(self.weights, reader, self._mask_of(part))

    def _mask_of(self, part: Part) -> Mask:
        if self.mask is None or self.mask.version != part.version.mask:
            raise VersionError(
                "weights for a mask that we do not hold",
                seen=part.version,
                expected=f"mask v{self.mask.version}" if self.mask else "a mask first",
            )
        return self.mask
