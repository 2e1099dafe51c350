"""The model as versions: what is committed, and the cheapest way for a client from one version to another.

One broadcast is encoded for each step b -> b+1 and decoded again; what comes out of it *is* version b+1, so that
every client that applies the step holds the same bits, and so does one that takes the snapshot. A client that is a
few steps behind gets the missing steps in order where that is smaller than the whole model. Whatever ends the chain
(a rollback, steps that are forgotten) leaves the snapshot, which always works.

Where clients have masks of their own (`levels.py`), each level has its own frame of the same step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from fedprune.applying import apply_frame, weights_of
from fedprune.codec import Limits, UpdateReader, decode_mask_set, decode_update, encode_mask_set, encode_update
from fedprune.feedback import Memory, caught_up, compress, is_compressed
from fedprune.mask import Mask
from fedprune.parts import Part
from fedprune.tensor import Schema, Version
from fedprune.work import UploadPlan
from fedprune_server.levels import Levels, on_mask, pack_levels, unpack_levels
from fedprune_server.prepared import Arrays, Prepared
from fedprune_server.state import Kept, pack_state, unpack_state
from fedprune_server.store import Store, VersionRecord
from fedprune_server.trials import ControlState
from fedprune_server.ways import Ways, is_small

log = logging.getLogger("fedprune.run")

# From this many parameters on the snapshot is encoded beside the step: while a round closes, a core is idle.
LARGE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    arrays: Arrays
    parts: tuple[Part, ...]
    memory: Memory = field(default_factory=Memory)
    dropped_norm: float = 0.0
    # The digest of the snapshot, where that was encoded beside the step, or is the same.
    model: str = ""


class Versions:
    """The committed versions of one run; the latest with its arrays."""

    def __init__(self, store: Store, run_id: str, schema: Schema, limits: Limits) -> None:
        self._store = store
        self.run_id = run_id
        self.schema = schema
        self._limits = limits
        self._ways = Ways(blobs=store.blobs)
        self._latest: Prepared | None = None
        # Where the pruning controller stands: as the latest version says, or further, by what clients found about it.
        self.control: ControlState | None = None

    @property
    def started(self) -> bool:
        """Whether there is a version yet."""
        return self._latest is not None

    @property
    def latest(self) -> Prepared:
        """The latest committed version."""
        assert self._latest is not None, "a run begins with a version"
        return self._latest

    def prepare(
        self,
        arrays: Arrays,
        mask: Mask,
        *,
        round_: int,
        plan: UploadPlan | None,
        optimizer: Arrays | None = None,
        beliefs: Arrays | None = None,
        control: ControlState | None = None,
        levels: Levels | None = None,
    ) -> Prepared:
        """Encode the next version and put its blobs; nothing is committed yet.

        With a `plan`, clients of the version before follow by a step that is compressed as it says, and the version
        is what that step decodes to. Without one everyone takes the snapshot, and what broadcasts left out is dropped.
        """
        before = self._latest
        version = Version(model=before.version.model + 1 if before else 0, mask=mask.version)
        memory, dropped = Memory(), before.kept.memory.norm if before else 0.0
        parts: tuple[Part, ...] = ()
        model = ""
        if plan is not None and before is not None:
            step = self._encode_step(before, version, arrays, mask, plan)
            arrays, memory, dropped, parts, model = step.arrays, step.memory, step.dropped_norm, step.parts, step.model
        levels = levels or {}
        packed = before.kept.levels if before and before.levels is levels else pack_levels(levels)
        kept = Kept(memory=memory, optimizer=optimizer or {}, beliefs=beliefs or {}, levels=packed, control=control)
        values = "raw" if is_small(self.schema) or (plan is not None and plan.values == "raw") else "lossless"
        model = model or self._put_snapshot(version, arrays, mask, values)
        record = self._record(version, model, mask, pack_state(kept), parts, round_)
        return Prepared(
            version=version,
            arrays=arrays,
            mask=mask,
            record=record,
            steps=parts,
            kept=kept,
            dropped_norm=dropped,
            levels=levels,
            level_steps=self._level_steps(before, version, arrays, mask, levels, plan) if parts and before else (),
        )

    def prepare_rollback(self, snapshot: Version, *, round_: int, control: ControlState) -> Prepared:
        """The content of an earlier version, to the byte, under new versions of model and mask: model, mask, and what
        the aggregator and the pruner remembered. Everyone takes it whole; what broadcasts left out is dropped."""
        old = self._read(self._store.version(self.run_id, snapshot.model))
        mask = Mask(schema=self.schema, version=self.latest.newest_mask + 1, alive=old.mask.alive)
        return self.prepare(
            old.arrays,
            mask,
            round_=round_,
            plan=None,
            optimizer=old.kept.optimizer,
            beliefs=old.kept.beliefs,
            control=control,
        )

    def _record(
        self,
        version: Version,
        model_digest: str,
        mask: Mask,
        state: bytes,
        parts: tuple[Part, ...],
        round_: int,
    ) -> VersionRecord:
        return VersionRecord(
            run_id=self.run_id,
            round=round_,
            version=version,
            model_digest=model_digest,
            mask_digest=self._put_mask(mask, self._latest),
            parent=self.latest.version.model if parts else None,
            broadcast_digest=parts[-1].digest if parts else None,
            state_digest=self._store.blobs.put(state) if state else None,
        )

    def adopt(self, prepared: Prepared) -> None:
        """Make a committed version the latest."""
        self._ways.open(prepared)
        self._latest = prepared
        self.control = prepared.kept.control
        if prepared.dropped_norm:
            log.info("what broadcasts left out, norm %.3g of it, went with what it belonged to", prepared.dropped_norm)

    def last_steps(self) -> tuple[tuple[Part, ...], ...]:
        """The parts that lead from the version before to the latest, for each level; none where only a snapshot does."""
        return self._ways.last_steps(self.latest)

    def parts(self, held: Version | None, want: Version) -> tuple[Part, ...]:
        """What to send to who holds `held` and wants `want`, which must be the latest, at any level."""
        return self._ways.parts(self.latest, held, want)

    @property
    def kept(self) -> AbstractSet[str]:
        """Digests of the blobs that may still be needed: by clients that are behind, or to undo a step on approval. Grows
        by what is made while it is in use."""
        control = self.latest.kept.control
        trial = control.trial if control is not None else None
        kept = self._ways.kept()
        if trial is not None:
            kept |= set(self._store.version(self.run_id, trial.snapshot.model).blobs)
        return kept

    def restore(self, record: VersionRecord) -> None:
        """Take up a version that an earlier process committed; clients that are behind get the snapshot."""
        self._latest = self._read(record)
        self.control = self._latest.kept.control

    def _read(self, record: VersionRecord) -> Prepared:
        return read_version(record, self._store.blobs.open, self.schema, self._limits)

    def _put_mask(self, mask: Mask, before: Prepared | None) -> str:
        if before is not None and before.mask.version == mask.version:
            return before.record.mask_digest
        return self._store.blobs.put(encode_mask_set(mask))

    def _encode_step(self, before: Prepared, version: Version, arrays: Arrays, mask: Mask, plan: UploadPlan) -> _Step:
        memory = before.kept.memory.copy()
        dropped = memory.mask(mask)
        if is_compressed(plan):
            step = self._compressed_step(before, version, arrays, mask, plan, memory)
            return replace(step, dropped_norm=dropped)
        arrays, model, raw = caught_up(arrays, memory), None, plan.values == "raw"
        with ThreadPoolExecutor(1) as beside:
            if self.schema.parameters >= LARGE and not raw:
                model = beside.submit(self._put_snapshot, version, arrays, mask, plan.values)
            frame = encode_update(
                arrays, schema=self.schema, plan=plan.values, mask=mask, base=before.arrays, version=version
            )
            parts = self._step_parts(before, version, mask, frame)
            # A raw step says all there is to say, whatever the receiver holds: it is the snapshot, too.
            whole = parts[-1].digest if raw else model.result() if model else ""
            return _Step(arrays=arrays, parts=parts, dropped_norm=dropped, model=whole)

    def _put_snapshot(self, version: Version, arrays: Arrays, mask: Mask, values: str) -> str:
        snapshot = encode_update(arrays, schema=self.schema, plan=values, mask=mask, version=version)
        return self._store.blobs.put(snapshot)

    def _level_steps(
        self,
        before: Prepared,
        version: Version,
        arrays: Arrays,
        mask: Mask,
        levels: Levels,
        plan: UploadPlan | None,
    ) -> tuple[tuple[Part, ...], ...]:
        """The step for each level of now or before: what its clients hold goes to what they are to hold."""
        assert plan is not None
        steps = []
        for level in sorted(before.levels.keys() | levels.keys(), reverse=True):
            held, wanted = before.levels.get(level, before.mask), levels.get(level, mask)
            base = before.arrays if held.version == wanted.version else on_mask(before.arrays, held)
            then = replace(version, mask=wanted.version)
            frame = encode_update(arrays, schema=self.schema, plan=plan.values, mask=wanted, base=base, version=then)
            steps.append(self._ways.between(replace(before.version, mask=held.version), held, then, wanted, frame))
        return tuple(steps)

    def _compressed_step(
        self, before: Prepared, version: Version, arrays: Arrays, mask: Mask, plan: UploadPlan, memory: Memory
    ) -> _Step:
        """The broadcast that leaves something out: the version is what clients decode, the rest stays with us."""
        base = {name: np.array(array) for name, array in before.arrays.items()}
        mask.apply(base)
        weights = {spec.name for spec in weights_of(self.schema)}
        change = {name: arrays[name] - base[name] if name in weights else arrays[name] for name in base}
        compressed = compress(
            change, memory, schema=self.schema, mask=mask, plan=plan, version=version, party="the coordinator"
        )
        limits = Limits.of_update(self.schema, mask)
        apply_frame(base, UpdateReader(compressed.frame, schema=self.schema, mask=mask, limits=limits), mask)
        parts = self._step_parts(before, version, mask, compressed.frame)
        return _Step(arrays=base, parts=parts, memory=compressed.after)

    def _step_parts(self, before: Prepared, version: Version, mask: Mask, frame: bytes) -> tuple[Part, ...]:
        return self._ways.between(before.version, before.mask, version, mask, frame)


def read_version(record: VersionRecord, blob: Callable[[str], memoryview], schema: Schema, limits: Limits) -> Prepared:
    """A version from the bytes that its record names."""
    mask = decode_mask_set(
        blob(record.mask_digest), schema=schema, version=record.version.mask, base=None, limits=limits
    )
    arrays = decode_update(blob(record.model_digest), schema=schema, mask=mask, limits=limits)
    kept = unpack_state(blob(record.state_digest)) if record.state_digest is not None else Kept()
    levels = unpack_levels(kept.levels, schema)
    return Prepared(version=record.version, arrays=arrays, mask=mask, record=record, steps=(), kept=kept, levels=levels)
