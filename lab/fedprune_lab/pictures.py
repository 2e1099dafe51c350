"""`fedprune inspect RUN --pictures DIR`: what is left of each layer, as a black and white PNG.

A row is an output unit, a column an input with its kernel place; a white dot is a weight that is alive. PNG with one
bit a dot is a header and a zlib stream, so no imaging library is needed.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from fedprune.errors import LocalError
from fedprune.mask import Bits

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def run(folder: Path, layers: list[str], out: Path) -> list[Path]:
    """Write a picture of each of `layers` of the run's last model to `out`. Raises `LocalError` where there is none."""
    model = folder / "model.safetensors"
    if not model.is_file():
        raise LocalError("there is no model to picture", seen=model, next_step="Name a finished run's folder")
    if not layers:
        raise LocalError("nothing was pruned in this run", seen=folder)
    weights = load_file(model)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in layers:
        path = out / f"{name}.png"
        path.write_bytes(png(weights[name] != 0))
        written.append(path)
    return written


def png(bits: Bits) -> bytes:
    """A picture of a tensor's bits [out, rest]: white where true."""
    rows = bits.reshape(bits.shape[0], -1) if bits.ndim > 1 else bits.reshape(1, -1)
    # Each line begins with the number of its filter: none.
    lines = np.hstack([np.zeros((rows.shape[0], 1), np.uint8), np.packbits(rows, axis=1)])
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 1, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
