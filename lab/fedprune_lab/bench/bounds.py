"""What Huffman coding is held against: the order-0 entropy of the symbols that are really in a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Values, entropy
from fedprune.codec.base import Cursor
from fedprune.codec.container import Segment, parse

ENOUGH = 20_000  # below this many values a table's own bytes decide


def symbols_over_entropy(frame: bytes) -> float | None:
    """Bytes of int8 and int4 symbols over their order-0 entropy, segments of at least 20 k values; None without any."""
    spent = bound = 0.0
    for segment in parse(memoryview(frame)).segments:
        if segment.values in (Values.INT8, Values.INT4) and segment.count >= ENOUGH:
            spent += len(segment.body)
            bound += entropy_of(codes_of(segment))
    return spent / bound if bound else None


def codes_of(segment: Segment) -> NDArray[np.uint8]:
    """The codes of a segment, one a value; int4 as nibbles."""
    pairs = segment.values is Values.INT4
    symbols = entropy.unpack(Cursor(segment.body), -(-segment.count // 2) if pairs else segment.count)
    return np.concatenate((symbols & 15, symbols >> 4)) if pairs else symbols


def entropy_of(symbols: NDArray[np.uint8]) -> float:
    """Order-0 entropy in bytes."""
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / symbols.size
    return float(-np.sum(shares * np.log2(shares)) * symbols.size / 8)
