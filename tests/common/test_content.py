"""The digest of a model's content tells any two contents apart."""

from __future__ import annotations

import numpy as np

from fedprune.content import content_digest
from fedprune.tensor import Role, Schema, TensorSpec

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="w", shape=(2, 3)),
        TensorSpec(name="seen", shape=(), dtype="int64", role=Role.COUNTER),
    )
)


def test_it_follows_every_bit_and_the_schema_and_nothing_else() -> None:
    arrays = {"seen": np.array(4), "w": np.zeros((2, 3), np.float32)}
    digest = content_digest(SCHEMA, arrays)
    assert len(digest) == 32
    assert content_digest(SCHEMA, {"w": np.asfortranarray(arrays["w"]), "seen": arrays["seen"]}) == digest
    assert content_digest(SCHEMA, arrays | {"w": -arrays["w"]}) != digest
    assert content_digest(SCHEMA, arrays | {"seen": np.array(5)}) != digest
    protected = SCHEMA.with_roles([Role.FREE, Role.COUNTER])
    assert content_digest(protected, arrays) != digest
