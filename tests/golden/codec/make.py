"""Writes the golden frames of the codec: run once for a format version, never again.

Each case is a frame, and beside it everything needed to read it and what must come out. `test_format.py` fails when a
coding has no golden frame, or when one of them is read differently by either decoder.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import (
    CODEC_VERSION,
    Content,
    Plan,
    Positions,
    decode_update,
    encode_mask_set,
    encode_update,
)
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version

FOLDER = Path(__file__).parent / f"v{CODEC_VERSION}"
VERSION = Version(shape=0, model=300, mask=2)
Arrays = dict[str, NDArray[np.generic]]


def save(name: str, frame: bytes, schema: Schema, **sides: Arrays | None) -> None:
    """`sides`: expected, and mask and base where the reader needs them."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.frame").write_bytes(frame)
    text = json.dumps([[t.name, t.shape, t.dtype, t.role.value] for t in schema])
    arrays = {f"{side}/{key}": array for side, held in sides.items() for key, array in (held or {}).items()}
    np.savez_compressed(FOLDER / f"{name}.npz", schema=np.array(text), **arrays)  # type: ignore[arg-type]


def mask_of(schema: Schema, density: float, seed: int, version: int = 2) -> Mask:
    """Random bits."""
    rng = np.random.default_rng(seed)
    alive = {t.name: np.asarray(rng.random(t.shape) < density) for t in schema.prunable}
    return Mask(schema=schema, version=version, alive=alive)


def bits(mask: Mask) -> Arrays:
    """A mask as plain arrays."""
    return dict(mask.alive)


def masks() -> None:
    """One frame for each position coding that masks know."""
    schema = Schema(
        tensors=(
            TensorSpec(name="conv", shape=(6, 4, 3, 3)),
            TensorSpec(name="bias", shape=(6,), role=Role.FREE),
            TensorSpec(name="fc", shape=(40, 31)),
        )
    )
    cases = [(Positions.BITMAP, 0.4), (Positions.CSR, 0.3), (Positions.RICE, 0.05)]
    for coding, density in (*cases, (Positions.GAP, 0.02), (Positions.GAP, 0.4)):
        mask = mask_of(schema, density, 1)
        frame = encode_mask_set(mask, plan=Plan(positions=coding))
        save(f"mask-{coding.name.lower()}-{density}", frame, schema, expected=bits(mask))
    save("mask-all", encode_mask_set(Mask.full(schema)), schema, expected=bits(Mask.full(schema)))
    lines = mask_of(schema, 0.5, 1)
    lines.alive["conv"][...] = False
    lines.alive["conv"][np.ix_([0, 2, 5], [1, 3])] = True
    lines.alive["fc"][...] = False
    lines.alive["fc"][np.ix_(np.arange(0, 40, 3), np.arange(5, 31))] = True
    save("mask-rows-columns", encode_mask_set(lines), schema, expected=bits(lines))
    base, moved = mask_of(schema, 0.2, 3, version=1), mask_of(schema, 0.2, 3)
    moved.alive["fc"][:7] = mask_of(schema, 0.2, 4).alive["fc"][:7]
    for coding in (Positions.XOR, Positions.PARTS):
        frame = encode_mask_set(moved, base=base, plan=Plan(positions=coding))
        save(f"mask-{coding.name.lower()}", frame, schema, expected=bits(moved), base=bits(base))
    save("mask-ref", encode_mask_set(base, base=base), schema, expected=bits(base), base=bits(base))
    lined = mask_of(schema, 0.7, 6)
    for alive in lined.alive.values():
        alive &= (np.arange(alive.shape[0]) % 3 > 0).reshape(-1, *[1] * (alive.ndim - 1))
        alive[:, ::4] = False
    frame = encode_mask_set(lined, plan=Plan(positions=Positions.GRID))
    save("mask-grid", frame, schema, expected=bits(lined))
    long = Schema(tensors=(TensorSpec(name="long", shape=(1200, 1000)),))
    for coding in (Positions.BITMAP, Positions.GAP):
        mask = mask_of(long, 0.004, 5)
        frame = encode_mask_set(mask, plan=Plan(positions=coding))
        save(f"mask-long-{coding.name.lower()}", frame, long, expected=bits(mask))


def network() -> Schema:
    """Every dtype, a 0-d and an empty tensor."""
    return Schema(
        tensors=(
            TensorSpec(name="w", shape=(30, 21)),
            TensorSpec(name="b", shape=(30,), role=Role.FREE),
            TensorSpec(name="mean", shape=(30,), role=Role.BUFFER),
            TensorSpec(name="steps", shape=(), dtype="int64", role=Role.COUNTER),
            TensorSpec(name="half", shape=(8, 9), dtype="float16"),
            TensorSpec(name="brain", shape=(8, 9), dtype="bfloat16", role=Role.FREE),
            TensorSpec(name="double", shape=(50,), dtype="float64", role=Role.FREE),
            TensorSpec(name="i32", shape=(5,), dtype="int32", role=Role.COUNTER),
            TensorSpec(name="i16", shape=(5,), dtype="int16", role=Role.COUNTER),
            TensorSpec(name="i8", shape=(5,), dtype="int8", role=Role.COUNTER),
            TensorSpec(name="u8", shape=(5,), dtype="uint8", role=Role.COUNTER),
            TensorSpec(name="flag", shape=(5,), dtype="bool", role=Role.COUNTER),
            TensorSpec(name="empty", shape=(0, 3)),
            TensorSpec(name="v", shape=(300, 17)),
        )
    )


def values(schema: Schema, seed: int) -> Arrays:
    """Floats of a net's size, small integers."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for spec in schema:
        if spec.dtype == "bfloat16":
            arrays[spec.name] = (rng.normal(0, 0.05, spec.shape).astype("<f4").view("<u4") >> 16).astype("<u2")
        elif spec.dtype.startswith("float"):
            arrays[spec.name] = np.asarray(rng.normal(0, 0.05, spec.shape)).astype(spec.numpy_dtype)
        else:
            arrays[spec.name] = np.asarray(rng.integers(0, 2 if spec.dtype == "bool" else 100, spec.shape)).astype(
                spec.numpy_dtype
            )
    return arrays


def drop(arrays: Arrays, mask: Mask) -> Arrays:
    """Zeros off the mask."""
    return {
        name: np.where(mask.alive[name], array, np.zeros((), array.dtype)) if name in mask.alive else array
        for name, array in arrays.items()
    }


def updates() -> None:
    """One frame for each value coding, with and without mask and base."""
    schema = network()
    mask, local = mask_of(schema, 0.3, 1), values(schema, 2)
    base = {name: np.multiply(a, a.dtype.type(1.001)) if a.dtype.kind == "f" else a for name, a in local.items()}
    masked = drop(local, mask)
    save("update-all", encode_update(local, schema=schema, version=VERSION), schema, expected=local)
    frame = encode_update(masked, schema=schema, mask=mask, version=VERSION)
    save("update-ref", frame, schema, expected=masked, mask=bits(mask))
    frame = encode_update(masked, schema=schema, mask=mask, base=base, version=VERSION)
    save("update-difference", frame, schema, expected=masked, mask=bits(mask), base=base)
    save("update-no-mask", encode_update(masked, schema=schema, version=VERSION), schema, expected=masked)
    top = drop(masked, mask_of(schema, 0.2, 7))
    for coding in (Positions.BITMAP, Positions.CSR, Positions.GAP, Positions.RICE):
        plan = Plan(sparse=True, positions=coding)
        frame = encode_update(top, schema=schema, mask=mask, plan=plan, version=VERSION, content=Content.DELTA)
        save(f"update-sparse-{coding.name.lower()}", frame, schema, expected=top, mask=bits(mask))
    for kind in ("fp16", "bf16", "int8", "int4", "ternary"):
        plan = Plan(values=kind, exact=("b",), rng=np.random.default_rng(3))
        frame = encode_update(masked, schema=schema, mask=mask, plan=plan, version=VERSION, content=Content.DELTA)
        expected = decode_update(frame, schema=schema, mask=mask)
        save(f"update-{kind}", frame, schema, expected=expected, mask=bits(mask))
    nibbles()
    long = Schema(tensors=(TensorSpec(name="long", shape=(150_000,)),))
    ramp: Arrays = {"long": (np.arange(150_000, dtype="<f4") // 9) * np.float32(2**-12)}
    save("update-long", encode_update(ramp, schema=long), long, expected=ramp)
    save(
        "update-raw",
        encode_update({"x": np.array([1.5], "<f4")}, schema=one()),
        one(),
        expected={"x": np.array([1.5], "<f4")},
    )


def nibbles() -> None:
    """Blocks of symbols in a narrow range with some far ones, odd in number; and of symbols that are nearly alike."""
    rng = np.random.default_rng(8)
    narrow = (rng.normal(250, 3, 33_001) + 40 * (rng.random(33_001) < 0.01)).astype(np.int64) % 256
    flat = rng.integers(0, 180, 16_385)
    for name, symbols in (("pairs", narrow), ("halves", flat)):
        schema = Schema(tensors=(TensorSpec(name="u8", shape=symbols.shape, dtype="uint8", role=Role.COUNTER),))
        arrays: Arrays = {"u8": symbols.astype(np.uint8)}
        save(f"update-{name}", encode_update(arrays, schema=schema), schema, expected=arrays)
    plan = Plan(values="int8")
    schema = Schema(tensors=(TensorSpec(name="w", shape=(1500,)),))
    frame = encode_update({"w": rng.normal(0, 0.05, 1500).astype(np.float32)}, schema=schema, plan=plan)
    save("update-int8-weights", frame, schema, expected=decode_update(frame, schema=schema))


def one() -> Schema:
    """A single number."""
    return Schema(tensors=(TensorSpec(name="x", shape=(1,), role=Role.FREE),))


if __name__ == "__main__":
    masks()
    updates()
