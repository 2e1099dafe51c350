"""The first model without a download: only where both sides draw the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedprune.content import content_digest
from fedprune.task import load_task
from fedprune.tensor import Version
from fedprune.torch import build_model, signature, to_arrays
from fedprune_client.drawing import draw

WriteTask = Callable[..., Path]


def test_the_same_seed_draws_the_coordinators_model(write_task: WriteTask) -> None:
    task = load_task(write_task())
    model = build_model(task, seed=5)
    schema = signature(model)
    arrays = to_arrays(model, schema)
    replica = draw(task, schema, seed=5, sha256=content_digest(schema, arrays))
    assert replica.version == Version()
    assert replica.mask is not None
    assert replica.mask.density == 1.0
    assert all(replica.weights[name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_another_model_is_not_claimed(write_task: WriteTask) -> None:
    task = load_task(write_task())
    model = build_model(task, seed=5)
    schema = signature(model)
    digest = content_digest(schema, to_arrays(model, schema))
    for seed, sha256 in ((6, digest), (5, b""), (5, digest[:-1])):
        replica = draw(task, schema, seed=seed, sha256=sha256)
        assert replica.version is None
        assert replica.weights == {}
