"""Scores and growth votes as frames: the ordinary container over the prunable tensors, all of them float32.

Both ends build the same reduced schema, so that nothing new goes over the wire. Scores travel for the alive weights
only; a vote is the mean gradient at the positions it names, and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Limits, Plan, UpdateReader, encode_update
from fedprune.feedback import codec_plan
from fedprune.mask import Indices, Mask
from fedprune.tensor import Role, Schema, TensorSpec, Version
from fedprune.work import UploadPlan

Floats = NDArray[np.float32]


def encode_scores(scores: Mapping[str, Floats], mask: Mask, *, plan: UploadPlan, version: Version) -> bytes:
    """The scores of the weights alive in `mask`, name -> array of the tensor's shape, coded as `plan` says."""
    reduced = _reduced(mask)
    return encode_update(scores, schema=reduced.schema, plan=_plan(plan, sparse=False), mask=reduced, version=version)


def decode_scores(frame: bytes | memoryview, mask: Mask) -> dict[str, Floats]:
    """Scores of the tensors' shapes, 0 off `mask`. Raises `RemoteError` where the bytes are no such frame."""
    reduced = _reduced(mask)
    scores = {spec.name: np.zeros(spec.shape, np.float32) for spec in reduced.schema}
    UpdateReader(frame, schema=reduced.schema, mask=reduced).into(scores)
    return scores


def encode_votes(
    grown: Mapping[str, Indices], gradients: Mapping[str, Floats], schema: Schema, *, plan: UploadPlan, version: Version
) -> bytes:
    """What a client would grow: by prunable tensor the flat positions, ascending, and the gradients there."""
    reduced = score_schema(schema)
    arrays = {spec.name: np.zeros(spec.shape, np.float32) for spec in reduced}
    for name, places in grown.items():
        arrays[name].reshape(-1)[places] = gradients[name]
    return encode_update(arrays, schema=reduced, plan=_plan(plan, sparse=True), version=version)


def decode_votes(frame: bytes | memoryview, schema: Schema) -> tuple[dict[str, Indices], dict[str, Floats]]:
    """(positions, gradients) by prunable tensor; a gradient of exactly 0 is no vote. Raises `RemoteError`; whether the
    positions were asked for is for `GrowthVote.check` to say."""
    reduced = score_schema(schema)
    places: dict[str, Indices] = {}
    gradients: dict[str, Floats] = {}
    for spec, packed in UpdateReader(frame, schema=reduced, limits=Limits.of_update(reduced)):
        indices = np.arange(spec.size, dtype=np.intp) if packed.indices is None else packed.indices
        kept = packed.values != 0
        places[spec.name] = indices[kept]
        gradients[spec.name] = packed.values[kept].astype(np.float32, copy=False)
    return places, gradients


def score_schema(schema: Schema) -> Schema:
    """The prunable tensors alone, as float32 whatever the model's own dtype."""
    return Schema(tensors=tuple(TensorSpec(name=t.name, shape=t.shape, role=Role.PRUNABLE) for t in schema.prunable))


def _reduced(mask: Mask) -> Mask:
    return Mask(schema=score_schema(mask.schema), version=mask.version, alive=mask.alive)


def _plan(plan: UploadPlan, *, sparse: bool) -> Plan:
    coded = codec_plan(plan)
    return Plan(values=coded.values, vectors=coded.vectors, sparse=sparse, exact=coded.exact, rng=coded.rng)
