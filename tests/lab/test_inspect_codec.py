"""A frame tells what it consists of; a mask, what its codings would weigh."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedprune.codec import encode_mask_set, encode_update
from fedprune.errors import LocalError, RemoteError
from fedprune.mask import Mask
from fedprune.report import LayerReport, RunReport, document
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_lab import inspect_codec

SCHEMA = Schema(
    tensors=(TensorSpec(name="w", shape=(100, 200)), TensorSpec(name="b", shape=(100,), role=Role.FREE)),
)


def mask() -> Mask:
    return Mask(schema=SCHEMA, version=4, alive={"w": np.random.default_rng(0).random((100, 200)) < 0.1})


def test_a_frame_in_a_file(tmp_path: Path) -> None:
    arrays = {"w": np.ones((100, 200), np.float32), "b": np.zeros(100, np.float32)}
    frame = encode_update(arrays, schema=SCHEMA, mask=mask())
    (tmp_path / "update").write_bytes(frame)
    whole = inspect_codec.run(tmp_path / "update")
    assert whole["content"] == "weights"
    assert whole["bytes"] == len(frame)
    (row,) = inspect_codec.segments(frame)
    assert (row.tensors, row.positions, row.values) == (2, "ref", "planes")
    text = "\n".join(inspect_codec.lines(whole))
    assert "ref" in text
    assert str(len(frame)) in text


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no frame")
    with pytest.raises(RemoteError, match="no frame"):
        inspect_codec.run(tmp_path / "x")
    with pytest.raises(LocalError, match="no such file"):
        inspect_codec.run(tmp_path / "y")


def test_the_chosen_coding_is_the_smallest_of_the_alternatives() -> None:
    found = list(inspect_codec.choices(mask()))
    assert {row.positions for row in found} == {"bitmap", "rice", "gap", "csr"}
    (chosen,) = [row for row in found if row.chosen]
    assert chosen.size == min(row.size for row in found)
    assert chosen.over_entropy is not None
    assert chosen.over_entropy < 1.06
    assert len(encode_mask_set(mask())) >= chosen.size


def test_the_frame_of_a_mask_shows_its_alternatives_once_the_sizes_are_known(tmp_path: Path) -> None:
    frame = encode_mask_set(mask())
    found = list(inspect_codec.choices_of_frame(frame, {"w": 20_000}))
    assert {row.positions for row in found} == {"bitmap", "rice", "gap"}
    (chosen,) = [row for row in found if row.chosen]
    assert chosen.positions == inspect_codec.segments(frame)[0].positions
    assert list(inspect_codec.choices_of_frame(frame, {})) == []
    (tmp_path / "v4.mask").write_bytes(frame)
    assert inspect_codec.run(tmp_path / "v4.mask")["alternatives"] == []


def test_a_mask_in_a_runs_folder_finds_its_sizes_in_the_report(
    tmp_path: Path, make_pruned: Callable[..., RunReport]
) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "v4.mask").write_bytes(encode_mask_set(mask()))
    layers = (LayerReport(name="w", size=20_000, alive=mask().alive_count),)
    run = make_pruned(2)
    changed = replace(run, rounds=tuple(replace(row, mask_version=4, layers=layers) for row in run.rounds))
    (tmp_path / "report.json").write_text(json.dumps(document([changed])))
    whole = inspect_codec.run(tmp_path / "masks" / "v4.mask")
    text = "\n".join(inspect_codec.lines(whole))
    assert "gap *" in text or "rice *" in text or "bitmap *" in text
    assert text.endswith("* chosen")
