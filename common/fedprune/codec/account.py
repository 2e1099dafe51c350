"""What the bytes of a frame are for, as the ledger counts them."""

from __future__ import annotations

from fedprune.codec import container
from fedprune.codec.base import Content


def account(data: bytes | memoryview) -> dict[str, int]:
    """Bytes of a frame by kind: mask | positions, scales, values, and manifest for everything that describes.

    Kinds without bytes are left out; the rest add up to the length of the frame. Raises as `container.parse`.
    """
    frame = container.parse(memoryview(data).cast("B"))
    places = sum(len(segment.places) for segment in frame.segments)
    scales = sum(len(segment.scales) for segment in frame.segments)
    values = sum(len(segment.body) for segment in frame.segments)
    kinds = {
        "mask" if frame.header.content is Content.MASK else "positions": places,
        "scales": scales,
        "values": values,
        "manifest": frame.size - places - scales - values,
    }
    return {kind: count for kind, count in kinds.items() if count}
