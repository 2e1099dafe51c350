"""What a receiver is ready to hold, computed from what it knows and never from what a frame says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedprune.codec.slots import Slot, slots
from fedprune.errors import LimitError
from fedprune.mask import Mask
from fedprune.tensor import Schema

FRAME_OVERHEAD_BYTES = 128
TENSOR_OVERHEAD_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`max_bytes` of the frame, `max_elements` of everything in it."""

    max_bytes: int
    max_elements: int

    @classmethod
    def of_update(cls, schema: Schema, mask: Mask | None = None) -> Limits:
        """Enough for any update or model of `schema` whose prunable weights are restricted to `mask`."""
        return cls.of_slots(slots(schema, mask))

    @classmethod
    def of_slots(cls, members: Sequence[Slot]) -> Limits:
        """Enough for any update or model of these tensors."""
        values = sum(slot.size * slot.spec.numpy_dtype.itemsize for slot in members)
        return cls(max_bytes=values + _overhead_bytes(len(members)), max_elements=sum(slot.size for slot in members))

    @classmethod
    def of_mask(cls, schema: Schema) -> Limits:
        """Enough for any mask of `schema`, in any coding that the chooser takes (CSR, forced, can need more)."""
        elements = sum(spec.size for spec in schema.prunable)
        return cls(max_bytes=elements // 8 + (elements >> 16) + _overhead_bytes(len(schema)), max_elements=elements)

    def check(self, *, size: int, elements: int) -> None:
        """Raise `LimitError` when a frame of `size` bytes for `elements` elements is more than this."""
        if size > self.max_bytes:
            raise LimitError("frame is too large", seen=f"{size} bytes", expected=f"at most {self.max_bytes}")
        if elements > self.max_elements:
            raise LimitError("too many elements", seen=elements, expected=f"at most {self.max_elements}")


def _overhead_bytes(tensors: int) -> int:
    return FRAME_OVERHEAD_BYTES + TENSOR_OVERHEAD_BYTES * tensors
