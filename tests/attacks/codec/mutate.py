"""Golden frames, changed at random and sealed again: whatever comes out is a value or a `RemoteError`.

Most changes of a frame die at its checks; an attacker would repair those, and so does `reseal`. Run as a program with a
number of frames (`python tests/attacks/codec/mutate.py 100000`); the test beside it takes a few.
"""

from __future__ import annotations

import json
import sys
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Limits, decode_mask_set, decode_update
from fedprune.codec.base import Cursor
from fedprune.errors import DecodeError, RemoteError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec

GOLDEN = Path(__file__).parents[2] / "golden" / "codec" / "v3"
LIMITS = Limits(max_bytes=1 << 22, max_elements=1 << 22)
Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A golden frame and its receiver."""

    name: str
    frame: bytes
    schema: Schema
    mask: Mask | None
    base: Arrays | None
    base_mask: Mask | None

    def read(self, data: bytes) -> None:
        """Decode `data` as this receiver would."""
        if self.name.startswith("mask-"):
            decode_mask_set(data, schema=self.schema, base=self.base_mask, limits=LIMITS)
        else:
            decode_update(data, schema=self.schema, mask=self.mask, base=self.base, limits=LIMITS)


def targets() -> list[Target]:
    """The golden frames that are small enough to be read thousands of times."""
    paths = sorted(GOLDEN.glob("*.frame"))
    return [_target(path) for path in paths if "long" not in path.stem]


def _target(path: Path) -> Target:
    with np.load(path.with_suffix(".npz")) as data:
        rows = json.loads(str(data["schema"]))
        arrays = {key: data[key] for key in data.files if key != "schema"}
    specs = [TensorSpec(name=n, shape=tuple(s), dtype=d, role=Role(r)) for n, s, d, r in rows]
    schema = Schema(tensors=tuple(specs))
    sides = {
        side: {key.partition("/")[2]: a for key, a in arrays.items() if key.startswith(side + "/")}
        for side in ("mask", "base")
    }
    is_mask = path.stem.startswith("mask-")
    return Target(
        name=path.stem,
        frame=path.read_bytes(),
        schema=schema,
        mask=_mask(schema, sides["mask"]),
        base=None if is_mask else sides["base"] or None,
        base_mask=_mask(schema, sides["base"]) if is_mask else None,
    )


def _mask(schema: Schema, bits: Arrays) -> Mask | None:
    if not bits:
        return None
    return Mask(schema=schema, version=1, alive={name: np.asarray(b, np.bool_) for name, b in bits.items()})


def mutate(frame: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes changed, cut out, put in or copied, most of them where the codings are."""
    data = bytearray(frame)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data))) if len(data) else 0
        match rng.integers(0, 5):
            case 0 | 1:
                data[at : at + 1] = rng.bytes(1)
            case 2:
                del data[at : at + int(rng.integers(1, 9))]
            case 3:
                data[at:at] = rng.choice([b"\xff" * 8, b"\x80" * 9, b"\x00" * 4, rng.bytes(3)])
            case _:
                data[at : at + 4] = data[-8:-4]
    return bytes(data)


def reseal(frame: bytes) -> bytes:
    """The frame with checks that fit, as far as its structure can be followed."""
    data, cursor = bytearray(frame), Cursor(memoryview(frame))
    try:
        whole = _skip_header(cursor, data)
        for _ in range(whole[1]):
            crc = _skip_segment(cursor, data)
            whole = (zlib.crc32(crc, whole[0]), whole[1])
        data[cursor.at : cursor.at + 4] = whole[0].to_bytes(4, "little")
    except DecodeError:
        pass  # what cannot be followed stays as it is
    return bytes(data)


def _skip_header(cursor: Cursor, data: bytearray) -> tuple[int, int]:
    flags = cursor.take(6)[5]
    cursor.take(8)
    for _ in range(3):
        cursor.varint()
    cursor.take(8 * (flags & 1) + 8 * (flags >> 1 & 1))
    segments, tensors = cursor.varint(), cursor.varint()
    for _ in range(min(tensors, 1000)):
        cursor.varint()
    crc = zlib.crc32(data[: cursor.at])
    data[cursor.at : cursor.at + 4] = crc.to_bytes(4, "little")
    cursor.take(4)
    return crc, min(segments, 1000)


def _skip_segment(cursor: Cursor, data: bytearray) -> bytes:
    start = cursor.at
    coding = cursor.take(2)[1]
    cursor.varint()
    sizes = [cursor.varint() for _ in range(3)]
    cursor.take(8 if coding == 3 else 0)
    cursor.take(sum(sizes))
    crc = zlib.crc32(data[start : cursor.at]).to_bytes(4, "little")
    data[cursor.at : cursor.at + 4] = crc
    cursor.take(4)
    return crc


def run(count: int, seed: int = 0) -> Counter[str]:
    """Read `count` changed frames; how many were read, and how many refused with which error."""
    rng, seen, every = np.random.default_rng(seed), Counter[str](), targets()
    for number in range(count):
        target = every[number % len(every)]
        data = mutate(target.frame, rng)
        if rng.random() < 0.8:
            data = reseal(data)
        try:
            target.read(data)
            seen["read"] += 1
        except RemoteError as error:
            seen[type(error).__name__] += 1
    return seen


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(dict(run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)))
