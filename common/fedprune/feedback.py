"""Error feedback: what compression leaves out of one update is added to the next.

Without it a client that sends 1 % of its changes would lose the other 99 % for good, and would not learn. The sender
keeps a residual e; it sends c = Q(top(e + d)) and keeps e + d - c, but only once the receiver has answered for c
(Seide et al., 2014; Sattler et al., 2019). Sent plus residual equals the sum of all changes, whatever happens to
masks, receipts and processes: what a mask change takes away is given back as a norm for the log.

With momentum, a velocity is kept beside the residual and cleared where something was sent, so that a stale direction
is not sent twice (momentum factor masking; Lin et al., 2018). Clients use this for uploads and the coordinator for
broadcasts; randomness is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from fedprune.applying import Array, put, weights_of
from fedprune.codec import EXACT, Content, Limits, Plan, UpdateReader, encode_update
from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, Version
from fedprune.work import UploadPlan

Floats = NDArray[np.float32]
# An absence of this many rounds leaves less than a third of a residual (0.9^11 = 0.31).
DECAY_A_ROUND = 0.9
VECTORS = "int8"
# Biases and norms are few, and each of them moves a whole row: of these more is sent than of matrices.
LEAST_OF_VECTORS = 0.1


def is_compressed(plan: UploadPlan) -> bool:
    """Whether an upload under this plan leaves anything out."""
    return plan.values not in EXACT or plan.top < 1.0


def check_schema(plan: UploadPlan, schema: Schema) -> None:
    """Raise `LocalError` for a model whose weights this plan cannot compress."""
    for spec in weights_of(schema):
        if is_compressed(plan) and spec.dtype != "float32":
            raise LocalError(
                f"the compression of float32 weights is asked for, but tensor {spec.name!r} has others",
                seen=spec.dtype,
                expected="float32",
                next_step='Keep the weights in float32, or set compression up and down = "lossless", top = 1.0',
            )


@dataclass(slots=True, kw_only=True)
class Memory:
    """What a sender remembers between updates, by tensor name; arrays of the tensor's shape, zero off the mask."""

    residual: dict[str, Floats] = field(default_factory=dict)
    velocity: dict[str, Floats] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """L2 norm of the residual."""
        return _norm(self.residual)

    def mask(self, mask: Mask) -> float:
        """Forget what is not alive any more; gives the norm of the residual that was dropped."""
        dropped = 0.0
        for name, bits in mask.alive.items():
            for memory in (self.residual, self.velocity):
                if name in memory:
                    gone = memory[name][~bits]
                    dropped += float(np.square(gone, dtype=np.float64).sum()) if memory is self.residual else 0.0
                    memory[name] = np.where(bits, memory[name], np.float32(0))
        return math.sqrt(dropped)

    def decay(self, rounds: int) -> None:
        """Trust the residual less after `rounds` rounds of absence."""
        if rounds > 0:
            for residual in self.residual.values():
                residual *= np.float32(DECAY_A_ROUND**rounds)

    def copy(self) -> Memory:
        """An independent copy."""
        return Memory(
            residual={n: a.copy() for n, a in self.residual.items()},
            velocity={n: a.copy() for n, a in self.velocity.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A frame ready to be sent, what it decodes to, and the memory to keep once it is answered for (`after`), or when
    it is refused (`unsent`: nothing of it arrived)."""

    frame: bytes
    sent: dict[str, Array]
    after: Memory
    unsent: Memory


def compress(
    tensors: Mapping[str, Array],
    memory: Memory,
    *,
    schema: Schema,
    mask: Mask,
    plan: UploadPlan,
    version: Version,
    party: str,
) -> Compressed:
    """Compress one update. `tensors` holds differences for weights (float32, zero off the mask) and values for
    buffers and counters. Raises `UpdateError` when a difference is not finite."""
    wanted, velocity = _accumulate(tensors, memory, schema, plan, party)
    chosen = {**tensors, **{n: _top(a, schema, mask, n, plan) for n, a in wanted.items()}}
    frame = encode_update(
        chosen, schema=schema, plan=codec_plan(plan), mask=mask, version=version, content=Content.DELTA
    )
    sent = decode_delta(frame, schema, mask)
    after = Memory()
    if plan.error_feedback:
        after.residual = {name: wanted[name] - sent[name] for name in wanted}
    if plan.momentum:
        after.velocity = {n: np.where(sent[n] != 0, np.float32(0), v) for n, v in velocity.items()}
    unsent = Memory(residual=wanted if plan.error_feedback else {}, velocity=velocity if plan.momentum else {})
    return Compressed(frame=frame, sent=sent, after=after, unsent=unsent)


def caught_up(tensors: Mapping[str, Array], memory: Memory) -> dict[str, Array]:
    """Weights, or differences, with all that was left out so far added: what an exact transfer carries, after which
    nothing is left. What is pruned must be gone from the memory already."""
    return {n: a + memory.residual[n] if n in memory.residual else a for n, a in tensors.items()}


def codec_plan(plan: UploadPlan) -> Plan:
    """What the codec may do: matrices as the plan says, biases and norms never coarser than int8."""
    coarse = plan.values in ("ternary", "int4")
    return Plan(
        values=plan.values,
        vectors=VECTORS if coarse else None,
        sparse=plan.top < 1.0,
        exact=plan.exact,
        rng=None if _signs_only(plan) else np.random.default_rng(plan.seed),
    )


def _signs_only(plan: UploadPlan) -> bool:
    """Whether what is chosen travels as a sign each, times one mean (Sattler et al., 2019). Rounding that is right on
    average (Wen et al., 2017) would drop most of the chosen ones again, which only pays where nothing is fed back."""
    return plan.values == "ternary" and plan.error_feedback


def decode_delta(frame: bytes, schema: Schema, mask: Mask) -> dict[str, Array]:
    """What the receiver will see: arrays of the tensors' shapes, zero where nothing travelled."""
    arrays: dict[str, Array] = {spec.name: np.zeros(spec.shape, spec.numpy_dtype) for spec in schema}
    reader = UpdateReader(frame, schema=schema, mask=mask, limits=Limits.of_update(schema, mask))
    for spec, packed in reader:
        put(arrays[spec.name], spec, packed, mask, add=False)
    return arrays


def _accumulate(
    tensors: Mapping[str, Array], memory: Memory, schema: Schema, plan: UploadPlan, party: str
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """residual + difference for each weight tensor, and the velocity behind it where the plan has momentum."""
    scale = _clip_factor(tensors, schema, plan)
    wanted: dict[str, Floats] = {}
    velocity: dict[str, Floats] = {}
    for spec in weights_of(schema):
        step = tensors[spec.name].astype(np.float32)
        if not np.isfinite(step).all():
            raise UpdateError(
                f"the change of tensor {spec.name!r} is not finite",
                party=party,
                next_step="Lower the learning rate, or look for broken examples",
            )
        step *= scale
        if plan.momentum:
            before = memory.velocity.get(spec.name)
            step = step if before is None else np.float32(plan.momentum) * before + step
            velocity[spec.name] = step
        rest = memory.residual.get(spec.name)
        wanted[spec.name] = step.copy() if rest is None else rest + step
    return wanted, velocity


def _clip_factor(tensors: Mapping[str, Array], schema: Schema, plan: UploadPlan) -> np.float32:
    if not plan.clip_norm:
        return np.float32(1)
    norm = _norm({s.name: tensors[s.name].astype(np.float32) for s in weights_of(schema)})
    return np.float32(min(1.0, plan.clip_norm / norm) if norm else 1.0)


def _top(values: Floats, schema: Schema, mask: Mask, name: str, plan: UploadPlan) -> Floats:
    """So many of a tensor's alive weights as are the share `top` of the whole tensor, largest magnitudes first, ties by
    position; at least one. What pruning takes from a tensor does not slow down the learning of what is left."""
    spec = schema[name]
    if plan.top >= 1.0 or any(fnmatchcase(name, pattern) for pattern in plan.exact):
        return values
    is_matrix = len(spec.shape) > 1
    flat = values.reshape(-1)
    alive = int(np.count_nonzero(mask.alive[name])) if spec.role is Role.PRUNABLE else flat.size
    share = plan.top if is_matrix else max(plan.top, LEAST_OF_VECTORS)
    keep = min(alive, max(1, round(share * flat.size)))
    if keep in (0, flat.size):
        return values
    magnitude = np.abs(flat)
    threshold = np.partition(magnitude, flat.size - keep)[flat.size - keep]
    chosen = magnitude > threshold
    ties = np.flatnonzero(magnitude == threshold)[: keep - int(np.count_nonzero(chosen))]
    chosen[ties] = True
    kept = np.where(chosen, flat, np.float32(0)).reshape(spec.shape)
    return np.sign(kept) * magnitude[chosen].mean() if is_matrix and _signs_only(plan) else kept


def _norm(arrays: Mapping[str, Floats]) -> float:
    return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays.values()))
