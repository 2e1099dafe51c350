"""docs/format.md, kept honest: golden frames for every coding, read by ours and by a decoder from the page alone.

A golden frame that is missing, or read differently by either decoder, is a failure.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.codec import (
    Content,
    Limits,
    Plan,
    Positions,
    Values,
    decode_mask_set,
    decode_update,
    encode_mask,
    encode_update,
)
from fedprune.codec.container import parse
from fedprune.codec.entropy import Mode
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version

GOLDEN = Path(__file__).parents[2] / "golden" / "codec" / "v3"
PAGE = Path(__file__).parents[3] / "docs" / "format.md"
CASES = 31
MODES = {"pairs": Mode.PAIRS, "halves": Mode.HALVES}
LIMITS = Limits(max_bytes=1 << 20, max_elements=1 << 21)  # forced CSR is larger than the limits of what is chosen
Arrays = dict[str, NDArray[np.generic]]


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # one half finds the other there
    spec.loader.exec_module(module)
    return module


load("slow_places")
slow = load("slow_decoder")


class Case:
    """One golden frame with what belongs to it."""

    def __init__(self, path: Path) -> None:
        self.frame = path.read_bytes()
        with np.load(path.with_suffix(".npz")) as data:
            rows = json.loads(str(data["schema"]))
            self.sides: dict[str, Arrays] = {}
            for key in data.files:
                side, _, name = key.partition("/")
                if name:
                    self.sides.setdefault(side, {})[name] = data[key]
        tensors = [TensorSpec(name=n, shape=tuple(s), dtype=d, role=Role(r)) for n, s, d, r in rows]
        self.schema = Schema(tensors=tuple(tensors))

    def mask(self, side: str) -> Mask | None:
        if side not in self.sides:
            return None
        alive = {name: bits.astype(np.bool_) for name, bits in self.sides[side].items()}
        return Mask(schema=self.schema, version=1, alive=alive)


def patterns(arrays: Arrays | None) -> dict[str, list[int]] | None:
    if arrays is None:
        return None
    return {name: np.asarray(a).reshape(-1).view(f"<u{a.dtype.itemsize}").tolist() for name, a in arrays.items()}


def codings(frame: bytes) -> tuple[set[Positions], set[Values]]:
    segments = parse(memoryview(frame)).segments
    return {s.positions for s in segments}, {s.values for s in segments}


FRAMES = sorted(GOLDEN.glob("*.frame"))


def test_no_golden_frame_is_missing_and_every_coding_has_one() -> None:
    assert len(FRAMES) == CASES
    positions: set[Positions] = set()
    values: set[Values] = set()
    for path in FRAMES:
        found = codings(path.read_bytes())
        positions |= found[0]
        values |= found[1]
    assert positions == set(Positions)
    assert values == set(Values)


def test_every_mode_of_a_block_has_a_golden_frame() -> None:
    modes = {
        name: parse(memoryview((GOLDEN / f"update-{name}.frame").read_bytes())).segments[0].body[0] for name in MODES
    }
    assert modes == MODES


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: path.stem)
def test_golden_frames_are_read_alike_by_both_decoders(path: Path) -> None:
    case = Case(path)
    expected = case.sides["expected"]
    if parse(memoryview(case.frame)).header.content is Content.MASK:
        got: Arrays = dict(decode_mask_set(case.frame, schema=case.schema, base=case.mask("base"), limits=LIMITS).alive)
    else:
        got = decode_update(case.frame, schema=case.schema, mask=case.mask("mask"), base=case.sides.get("base"))
    assert patterns(got) == patterns(expected)
    sides = [patterns(case.sides.get(side)) for side in ("mask", "base")]
    assert slow.decode(case.frame, case.schema, *sides) == patterns(expected)


def test_the_example_of_the_page_is_what_we_write() -> None:
    block = re.search(r"```hex\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    lines = [line[:29] for line in block.group(1).splitlines()]
    schema = Schema(tensors=(TensorSpec(name="w", shape=(8,)),))
    weights: Arrays = {"w": np.array([0.5, 0, 0, 0, 0, 0, 0, -2.0], np.float32)}
    frame = encode_update(weights, schema=schema, version=Version(model=4, mask=1))
    assert bytes.fromhex("".join(lines)) == frame
    assert slow.decode(frame, schema, None, None) == patterns(weights)


@pytest.mark.parametrize(
    "coding", [Positions.BITMAP, Positions.GAP, Positions.RICE, Positions.CSR, Positions.GRID, None]
)
@pytest.mark.parametrize("density", [0.003, 0.2, 0.7])
def test_fresh_masks_are_read_by_the_slow_decoder(coding: Positions | None, density: float) -> None:
    bits = np.random.default_rng(4).random((50, 60)) < density
    schema = Schema(tensors=(TensorSpec(name="mask", shape=(50, 60)),))
    frame = encode_mask(bits, plan=Plan(positions=coding))
    assert slow.decode(frame, schema, None, None) == patterns({"mask": bits})
