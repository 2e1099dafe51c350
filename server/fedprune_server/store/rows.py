"""Records as flat rows and back: what SQLite and the chain's JSON can both hold.

A row is a dict in the order of the record's fields. A `Version` becomes three columns, bytes become base64, an
enumeration its value, a truth value 0 or 1; everything else is what it is.
"""

from __future__ import annotations

import base64
import json
from dataclasses import Field, fields
from enum import Enum
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar, get_type_hints

from fedprune.tensor import Version


class Record(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Columns(Protocol):
    """A row by column name: a dict or SQLite's own."""

    def __getitem__(self, column: str, /) -> Any:
        """The column's value."""


Scalar = str | int | float | None
Row = dict[str, Scalar]
VERSION_COLUMNS = ("shape", "model", "mask")


def to_row(record: Record) -> Row:
    """The record as a row."""
    row: Row = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Version):
            row.update(shape=value.shape, model=value.model, mask=value.mask)
        elif isinstance(value, bytes):
            row[field.name] = base64.b64encode(value).decode()
        elif isinstance(value, bool):
            row[field.name] = int(value)
        else:
            row[field.name] = value.value if isinstance(value, Enum) else value
    return row


R = TypeVar("R", bound=Record)


def from_row(record: type[R], row: Columns) -> R:
    """The record that gave this row; columns that the record does not have are left out."""
    return record(**{name: _value(hint, name, row) for name, hint in _hints(record).items()})


def _value(hint: object, name: str, row: Columns) -> object:
    if hint is Version:
        return Version(**{column: int(row[column] or 0) for column in VERSION_COLUMNS})
    value = row[name]
    if hint is bytes:
        return base64.b64decode(str(value))
    if hint is bool:
        return bool(value)
    return hint(value) if isinstance(hint, type) and issubclass(hint, Enum) else value


@cache
def _hints(record: type[Record]) -> dict[str, object]:
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in fields(record)}


# One spelling only, so that equal content has equal hashes.
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: object) -> str:
    """JSON in its one spelling. Raises `ValueError` for numbers that are not finite."""
    return _JSON.encode(value)
