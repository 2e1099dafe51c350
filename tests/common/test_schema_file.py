"""A schema is read as it was written, or refused with its file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedprune.errors import LocalError
from fedprune.schema_file import NAME, read_schema, to_json
from fedprune.tensor import Role, Schema, TensorSpec

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(3, 4)),
        TensorSpec(name="b", shape=(3,), role=Role.FREE),
        TensorSpec(name="seen", shape=(), dtype="int64", role=Role.COUNTER),
    )
)


def test_a_schema_comes_back(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(to_json(SCHEMA))
    assert read_schema(tmp_path) == SCHEMA
    assert read_schema(tmp_path).digest == SCHEMA.digest


@pytest.mark.parametrize("text", ["", "[]x", '[{"name": "w"}]', '[{"name": "w", "shape": [3], "role": "king"}]'])
def test_what_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(LocalError, match="schema"):
        read_schema(tmp_path)


def test_a_folder_without_one_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="Name the folder of a run"):
        read_schema(tmp_path)
