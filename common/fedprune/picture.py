"""A mask as a small PNG: which weights are alive, and where there are more than fit, how many of them.

Each pixel is one colour whose opacity is the density of the weights behind it, so that one picture serves a light and
a dark page. Pure: an array in, bytes out (PNG specification, 3rd edition, 2025: indexed colour with `tRNS`).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from fedprune.mask import Bits

LARGEST_SIDE = 256
INK = (13, 148, 136)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def mask_png(alive: Bits, *, largest_side: int = LARGEST_SIDE, ink: tuple[int, int, int] = INK) -> bytes:
    """The picture of a tensor's mask, seen as [out, rest]; sides beyond `largest_side` are averaged down to it."""
    shares = densities(alive, largest_side=largest_side)
    # A weight that is alive must show, however many dead ones share its pixel.
    levels = np.where(shares > 0, np.maximum(np.rint(shares * 255), 24), 0).astype(np.uint8)
    rows, columns = levels.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), levels], axis=1)
    return SIGNATURE + b"".join(
        [
            _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(ink) * 256),
            _chunk(b"tRNS", bytes(range(256))),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)),
            _chunk(b"IEND", b""),
        ]
    )


def densities(alive: Bits, *, largest_side: int) -> NDArray[np.float64]:
    """Alive shares [rows, columns] of the tensor seen as [out, rest], each side at most `largest_side`."""
    matrix = alive.reshape(alive.shape[0], -1) if alive.ndim > 1 else alive.reshape(1, -1)
    shares = matrix.astype(np.float64)
    for axis in (0, 1):
        length = shares.shape[axis]
        if length > largest_side:
            starts = np.arange(largest_side) * length // largest_side
            counts = np.diff(np.append(starts, length))
            sums = np.add.reduceat(shares, starts, axis=axis)
            shares = sums / (counts[:, None] if axis == 0 else counts[None, :])
    return shares


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
