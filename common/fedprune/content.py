"""A digest of a model's content, by which two sides find that they hold the same without sending it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.tensor import Schema


def content_digest(schema: Schema, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """SHA-256 over the schema and, in its order, the little-endian bytes of every tensor."""
    digest = hashlib.sha256(schema.digest.encode())
    for spec in schema:
        array = np.ascontiguousarray(arrays[spec.name], dtype=spec.numpy_dtype.newbyteorder("<"))
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()
