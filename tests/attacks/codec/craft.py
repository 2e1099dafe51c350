"""Frames that lie, with every check in order: what an attacker who knows docs/format.md would send.

Run as a program, this writes each of them to the folder beside it and the table in README.md. The receiver they are
made for holds `SCHEMA`, no mask and no base, unless their name says otherwise.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from fedprune.codec.base import varint
from fedprune.tensor import Role, Schema, TensorSpec

FOLDER = Path(__file__).parent
COUNT = 600
SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(20, 30)),
        TensorSpec(name="steps", shape=(3,), dtype="int64", role=Role.COUNTER),
        TensorSpec(name="flags", shape=(3,), dtype="bool", role=Role.COUNTER),
    )
)
HUGE = 1 << 62
ALL, REF, BITMAP, CSR, LINES, GAP, RICE, XOR, PARTS, GRID = range(10)
NONE, RAW, PLANES, DIFFERENCE, FLOAT16, BFLOAT16, INT8, INT4, TERNARY = range(9)

Attack = tuple[str, str, bytes]  # file name, what it tries, the frame


def le32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def header(
    *, magic: bytes = b"fpr\x03", content: int = 2, flags: int = 0, schema: bytes = b"", tail: bytes | None = None
) -> bytes:
    """Everything before the header's check; `tail` replaces numbers of segments and tensors and their owners."""
    name = schema or bytes.fromhex(SCHEMA.digest)[:8]
    owners = varint(3) + varint(3) + bytes((0, 1, 2)) if tail is None else tail
    return magic + bytes((content, flags)) + name + bytes(3) + owners


def segment(
    positions: int, values: int, count: int, places: bytes = b"", scales: bytes = b"", body: bytes = b""
) -> bytes:
    """A segment with its check, and a proof of 0 where there is one."""
    data = bytes((positions, values)) + varint(count) + b"".join(varint(len(p)) for p in (places, scales, body))
    data += bytes(8) if values == DIFFERENCE else b""
    data += places + scales + body
    return data + le32(zlib.crc32(data))


STEPS = segment(ALL, RAW, 3, body=bytes(24))
FLAGS = segment(ALL, RAW, 3, body=b"\x00\x01\x00")
WEIGHTS = segment(ALL, RAW, COUNT, body=bytes(4 * COUNT))


def frame(head: bytes, *segments: bytes) -> bytes:
    """Header and segments, sealed."""
    whole = zlib.crc32(head)
    sealed = head + le32(whole)
    for part in segments:
        whole = zlib.crc32(part[-4:], whole)
        sealed += part
    return sealed + le32(whole)


def with_weights(first: bytes) -> bytes:
    """A whole update whose first segment is the attack."""
    return frame(header(), first, STEPS, FLAGS)


def in_mask(part: bytes, *, flags: int = 0, base: bytes = b"") -> bytes:
    """A mask frame with one segment."""
    head = b"fpr\x03" + bytes((1, flags)) + bytes.fromhex(SCHEMA.digest)[:8] + bytes(3) + base
    return frame(head + varint(1) + varint(1) + bytes(1), part)


def huffman(coded: bytes, length: int | None = None) -> bytes:
    """A stream block of mode 1."""
    return b"\x01" + varint(len(coded) if length is None else length) + coded


def zstd(data: bytes, **options: object) -> bytes:
    """An honest zstd frame."""
    parameters = zstandard.ZstdCompressionParameters.from_level(3, **options)  # type: ignore[arg-type]
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def zstd_streamed(size: int) -> bytes:
    """A zstd frame that does not say how long it is."""
    maker = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    zeros = bytes(1 << 20)
    return b"".join(maker.compress(zeros) for _ in range(size >> 20)) + maker.flush()


def of_frames() -> Iterator[Attack]:
    good = frame(header(), WEIGHTS, STEPS, FLAGS)
    yield "empty", "no bytes at all", b""
    yield "short", "ends in the header", good[:10]
    yield "cut", "ends in the middle of the weights", good[: len(good) // 2]
    yield "tail", "bytes after the end", good + b"x"
    yield "magic", "another kind of file", frame(header(magic=b"PK\x03\x04"))
    yield "version", "a format of the future", frame(header(magic=b"fpr\x04"), WEIGHTS, STEPS, FLAGS)
    yield "content", "a kind of content that is none", frame(header(content=9), WEIGHTS, STEPS, FLAGS)
    yield "flags", "flags that mean nothing", frame(header(flags=0xFC), WEIGHTS, STEPS, FLAGS)
    yield "schema", "another model", frame(header(schema=b"otherone"), WEIGHTS, STEPS, FLAGS)
    yield "segments", "2^62 segments", frame(header(tail=varint(HUGE) + varint(3) + bytes(3)))
    yield "tensors", "2^62 tensors", frame(header(tail=varint(1) + varint(HUGE) + bytes(3)))
    yield "owner", "a tensor in segment 2^40", frame(header(tail=varint(1) + varint(3) + bytes(2) + varint(1 << 40)))
    yield "orphan", "a segment without a tensor", frame(header(tail=varint(3) + varint(3) + bytes((0, 2, 2))), WEIGHTS)
    yield "few", "fewer tensors than the model has", frame(header(tail=varint(1) + varint(1) + bytes(1)), WEIGHTS)
    yield "endless", "a number that does not end", frame(b"fpr\x02\x02\x00" + bytes(8) + b"\xff" * 40)
    yield "padded", "a number padded with zeros", frame(b"fpr\x02\x02\x00" + bytes(8) + b"\x80\x00" + bytes(8))
    yield "header-crc", "a header that was changed", good[:4] + b"\x03" + good[5:]
    yield "whole-crc", "a check of the whole that does not fit", good[:-1] + bytes((good[-1] ^ 1,))
    yield "body-crc", "a value that was changed", good[:60] + b"\x7f" + good[61:]
    yield "swapped", "segments in another order", frame(header(), STEPS, WEIGHTS, FLAGS)
    yield "mask", "a mask where an update is expected", in_mask(segment(ALL, NONE, COUNT))


def of_lengths() -> Iterator[Attack]:
    raw = bytes(4 * COUNT)
    yield "count", "2^62 values", with_weights(segment(ALL, RAW, HUGE, body=raw))
    yield "count-more", "one value more than there are", with_weights(segment(ALL, RAW, COUNT + 1, body=raw + raw[:4]))
    yield "count-less", "fewer values than `all` means", with_weights(segment(ALL, RAW, 1, body=raw[:4]))
    yield "places-long", "2^62 bytes of places", lie("places")
    yield "scales-long", "2^62 bytes of scales", lie("scales")
    yield "body-long", "2^62 bytes of values", lie("body")
    yield "raw-long", "raw values that are too many bytes", with_weights(segment(ALL, RAW, COUNT, body=raw + b"x"))
    yield "no-values", "an update without values", with_weights(segment(ALL, NONE, COUNT))
    yield "position-coding", "a position coding that is none", with_weights(segment(99, RAW, COUNT, body=raw))
    yield "value-coding", "a value coding that is none", with_weights(segment(ALL, 99, COUNT, body=raw))
    yield "xor-update", "a mask's coding in an update", with_weights(segment(XOR, RAW, COUNT, body=raw))
    lossy = segment(ALL, INT8, 3, scales=b"\x07" + bytes(4) + b"\x02\x00", body=b"\x02\x00")
    yield "lossy-integer", "integers with loss", frame(header(), WEIGHTS, lossy, FLAGS)


def lie(part: str) -> bytes:
    """A segment with one length of 2^62."""
    data = bytes((ALL, RAW)) + varint(COUNT)
    data += b"".join(varint(HUGE if name == part else 0) for name in ("places", "scales", "body"))
    return with_weights(data + le32(zlib.crc32(data)))


def of_streams() -> Iterator[Attack]:
    symbols = bytes(COUNT)

    def int8(stream: bytes) -> bytes:
        scales = b"\x07" + struct.pack("<f", 1.0) + b"\x02\x00"
        return with_weights(segment(ALL, INT8, COUNT, scales=scales, body=stream))

    bomb = zstd(bytes(1 << 27))
    lied = bytearray(zstd(bytes(1 << 20)))
    lied[4:9] = bytes((0x60,)) + (COUNT - 256).to_bytes(2, "little") + lied[7:9]
    yield "zstd-bomb", "128 MiB behind 4 kB, honestly declared", int8(huffman(bomb))
    yield "zstd-undeclared", "256 MiB behind a frame that does not say its size", int8(huffman(zstd_streamed(1 << 28)))
    yield "zstd-lied", "1 MiB behind a frame that declares 600 bytes", int8(huffman(bytes(lied)))
    yield "zstd-twice", "a second frame behind the first", int8(huffman(zstd(symbols) + zstd(symbols)))
    yield "zstd-skippable", "a skippable frame in front", int8(huffman(b"\x50\x2a\x4d\x18" + bytes(4) + zstd(symbols)))
    yield "zstd-window", "a window of 2 GiB", int8(huffman(b"\x28\xb5\x2f\xfd\x40\xa8" + b"\x58\x01" + b"\x01\x00\x00"))
    yield (
        "zstd-dictionary",
        "a dictionary that we do not have",
        int8(huffman(b"\x28\xb5\x2f\xfd\x61\x07\x58\x01\x01\x00\x00")),
    )
    yield "zstd-broken", "no zstd frame at all", int8(huffman(b"nonsense"))
    yield "zstd-short", "one symbol less than there are values", int8(huffman(zstd(symbols[1:])))
    yield "zstd-long", "a coded length of 2^62", int8(huffman(b"x", HUGE))
    pairs = int8(b"\x03\x00" + varint(0) + b"\xff" * 300 + varint(len(bomb)) + bomb)
    yield "pairs-bomb", "128 MiB as far symbols of 600 values", pairs
    yield "pairs-few", "fewer far symbols than announced", int8(b"\x03\x00" + varint(0) + b"\xff" * 300 + b"\x00" * 9)
    yield "pairs-long", "a coded length of 2^62", int8(b"\x03\x00" + varint(HUGE))
    nibbles = zstd(b"\x10" * COUNT)
    yield "halves-wide", "nibbles of five bits", int8(b"\x04" + varint(len(nibbles)) + nibbles + varint(0) + bytes(300))
    yield "halves-short", "low nibbles that end early", int8(b"\x04" + varint(0) + bytes(300) + varint(0) + bytes(10))
    yield "mode", "a block mode that is none", int8(b"\x07" + symbols)
    yield "stream-tail", "symbols left over", int8(b"\x00" + symbols + b"\x00")


def of_places() -> Iterator[Attack]:
    def places(coding: int, data: bytes, count: int) -> bytes:
        return with_weights(segment(coding, RAW, count, places=data, body=bytes(4 * count)))

    yield "gap-beyond", "places after the end", places(GAP, b"\x03\x00" + b"\x07" * 100, 100)
    yield "gap-overflow", "600 gaps of 2^39 each", places(GAP, b"\x03\x02\x9b" + b"\xff" * 2775, 600)
    yield "gap-symbol", "a gap of more than 2^40", places(GAP, b"\x03\x00\xff", 1)
    yield "gap-exact", "a float that is none", places(GAP, b"\x09\x00\x00", 1)
    yield "gap-bits", "raw bits beyond the end of a byte", places(GAP, b"\x03\x00\x08\xff", 1)
    yield "rice-bits", "63 raw bits", places(RICE, b"\x3f" + bytes(8), 1)
    yield "rice-long", "2^62 bytes in unary", places(RICE, b"\x00" + varint(HUGE), 1)
    yield "rice-few", "fewer places than announced", places(RICE, b"\x00\x01\x80", 5)
    yield "rice-beyond", "a place after the end", places(RICE, b"\x09\xff\x80\x01\x08", 1)
    yield "csr-column", "a column outside its row", places(CSR, b"\x01" + bytes(19) + b"\xc8", 1)
    yield "csr-twice", "the same column twice", places(CSR, b"\x02" + bytes(19) + b"\x04\x04", 2)
    yield "csr-unsorted", "columns that go back", places(CSR, b"\x02" + bytes(19) + b"\x05\x04", 2)
    yield "csr-lengths", "rows longer than the segment", places(CSR, b"\xff" * 20, 1)
    middle = b"\x02\x07\x02\x07"  # all rows and columns of one class: group 14 is all cells
    yield "grid-class", "a class that is none", places(GRID, b"\x02\x10\x02\x00", 1)
    yield "grid-part", "2^62 places in a group", places(GRID, middle + bytes((GAP,)) + varint(HUGE), 1)
    yield "grid-coding", "a coding that is no part", places(GRID, middle + bytes((CSR, 1)) + bytes(21), 1)
    yield "grid-nested", "a grid inside a grid", places(GRID, middle + bytes((GRID, 1)) + middle, 1)
    yield "grid-few", "fewer places than announced", places(GRID, middle + bytes((RICE, 1, 0, 1, 0x80)), 2)
    yield "grid-short", "classes that end early", places(GRID, b"\x00" + bytes(9), 1)
    beyond = segment(BITMAP, RAW, 1, places=b"\x00\x81", body=b"\x01")
    yield "bitmap-beyond", "bits after the end", frame(header(), WEIGHTS, STEPS, beyond)
    yield "bitmap-count", "more bits than places", places(BITMAP, b"\x00" + b"\xff" * 75, 7)
    yield "bitmap-short", "a bitmap that ends early", places(BITMAP, b"\x00" + bytes(3), 1)


def of_values() -> Iterator[Attack]:
    def scaled(coding: int, scales: bytes, body: bytes) -> bytes:
        return with_weights(segment(ALL, coding, COUNT, scales=scales, body=body))

    flat = b"\x02\x7f"
    yield (
        "int8-infinite",
        "a scale that is infinite",
        scaled(INT8, b"\x07" + struct.pack("<f", np.inf) + b"\x02\x00", flat),
    )
    yield "int8-nan", "a scale that is no number", scaled(INT8, b"\x07" + struct.pack("<f", np.nan) + b"\x02\x00", flat)
    yield "int8-negative", "a negative scale", scaled(INT8, b"\x07" + struct.pack("<f", -1.0) + b"\x02\x00", flat)
    yield (
        "int8-overflow",
        "a scale near the end of float32",
        scaled(INT8, b"\x07" + struct.pack("<f", 3.4e38) + b"\x02\x00", b"\x02\x80"),
    )
    yield "int8-block", "blocks of 2^63 values", scaled(INT8, b"\x3f" + struct.pack("<f", 1.0) + b"\x02\x00", flat)
    yield "int8-scales", "fewer scales than blocks", scaled(INT8, b"\x07" + struct.pack("<f", 1.0) + b"\x00\x01", flat)
    yield "ternary-nan", "a scale that is no number", scaled(TERNARY, struct.pack("<f", np.nan), b"\x02\x00")
    yield "ternary-five", "five signs that are none", scaled(TERNARY, struct.pack("<f", 1.0), b"\x02\xfa")
    yield "float16-infinite", "float16 infinities", scaled(FLOAT16, b"\x00", b"\x02\x00\x02\xf8")
    signalling = scaled(FLOAT16, b"\x00", b"\x02\x02\x02\xf8")
    yield "float16-signalling", "float16 that is no number, and would have the processor say so", signalling
    yield "float16-shift", "a power of two outside float32", scaled(FLOAT16, b"\x80", b"\x02\x00\x02\x00")
    yield "bfloat16-nan", "bfloat16 that is no number", scaled(BFLOAT16, b"", b"\x02\xff\x02\xff")
    yield "bool", "a truth value of 2", frame(header(), WEIGHTS, STEPS, segment(ALL, RAW, 3, body=b"\x00\x02\x00"))
    planes = (b"\x02\x00") * 4
    yield (
        "no-base",
        "a difference to a base that nobody holds",
        with_weights(segment(ALL, DIFFERENCE, COUNT, body=planes)),
    )


def of_masks() -> Iterator[Attack]:
    part = bytes((BITMAP,)) + varint(0) + b"\x02\x00"
    yield "mask-count", "more alive weights than there are", in_mask(segment(BITMAP, NONE, HUGE, places=b"\x02\xff"))
    yield "mask-values", "values in a mask", in_mask(segment(ALL, RAW, COUNT, body=bytes(4 * COUNT)))
    yield "mask-hidden", "bytes hidden behind a mask", in_mask(segment(ALL, NONE, COUNT, body=bytes(9)))
    yield "mask-no-base", "a difference that names no base", in_mask(segment(XOR, NONE, 0, places=part))
    yield (
        "mask-other-base",
        "a difference to another base",
        in_mask(segment(XOR, NONE, 0, places=part), flags=2, base=b"otherone"),
    )
    yield "mask-update", "an update where a mask is expected", frame(header(), WEIGHTS, STEPS, FLAGS)


def attacks() -> list[Attack]:
    """All of them; those whose name starts with `mask-` are meant for a reader of masks."""
    return [*of_frames(), *of_lengths(), *of_streams(), *of_places(), *of_values(), *of_masks()]


def main() -> None:
    """Write the files and the table."""
    rows = ["# Frames that lie\n", "What each tries. `craft.py` writes them; `test_attacks.py` reads them.\n"]
    rows += ["| file | tries |", "| --- | --- |"]
    for name, tries, data in attacks():
        (FOLDER / f"{name}.frame").write_bytes(data)
        rows.append(f"| `{name}` | {tries} |")
    (FOLDER / "README.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
