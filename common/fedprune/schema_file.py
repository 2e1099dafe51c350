"""`schema.json` in a run's folder: the names, shapes, dtypes and roles that its frames leave out."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedprune.errors import LocalError
from fedprune.tensor import Schema, TensorSpec

NAME = "schema.json"
_TENSORS = TypeAdapter(tuple[TensorSpec, ...])


def to_json(schema: Schema) -> str:
    """The tensors of a schema in their order."""
    return _TENSORS.dump_json(schema.tensors, indent=1).decode() + "\n"


def read_schema(folder: Path) -> Schema:
    """The schema of the run in `folder`. Raises `LocalError` when there is none, or it is not one."""
    path = folder / NAME
    try:
        return Schema(tensors=_TENSORS.validate_json(path.read_bytes()))
    except (OSError, ValidationError) as error:
        raise LocalError(
            "cannot read the run's schema", seen=f"{path}: {error}", next_step="Name the folder of a run"
        ) from error
