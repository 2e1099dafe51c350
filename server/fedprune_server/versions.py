"""The model as versions: what is committed, and the cheapest way for a client from one version to another.

One broadcast is encoded for each step b -> b+1 and decoded again; what comes out of it *is* version b+1, so that
every client that applies the step holds the same bits, and so does one that takes the snapshot. A client that is a
few steps behind gets the missing steps in order where that is smaller than the whole model. Whatever ends the chain
(a rollback, steps that are forgotten) leaves the snapshot, which always works.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Limits, decode_mask_set, decode_update, encode_mask_set, encode_update
from fedprune.errors import VersionError
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.tensor import Schema, Version
from fedprune_server.store import Store, VersionRecord

# Steps that are kept for clients that are behind.
HISTORY = 8

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A version that is encoded and stored, but not yet the latest."""

    version: Version
    arrays: Arrays
    mask: Mask
    record: VersionRecord
    steps: tuple[Part, ...]


class Versions:
    """The committed versions of one run; the latest with its arrays."""

    def __init__(self, store: Store, run_id: str, schema: Schema, limits: Limits) -> None:
        self._store = store
        self._run_id = run_id
        self.schema = schema
        self._limits = limits
        # Steps by the model version they lead to, oldest first.
        self._steps: OrderedDict[int, tuple[Part, ...]] = OrderedDict()
        self._latest: Prepared | None = None

    @property
    def latest(self) -> Prepared:
        """The latest committed version."""
        assert self._latest is not None, "a run begins with a version"
        return self._latest

    def prepare(self, arrays: Arrays, mask: Mask, *, round_: int, step: bool) -> Prepared:
        """Encode the next version and put its blobs; nothing is committed yet.

        With `step`, clients of the version before can follow by a delta; without, everyone takes the snapshot.
        """
        before = self._latest
        version = Version(model=before.version.model + 1 if before else 0, mask=mask.version)
        mask_digest = self._put_mask(mask, before)
        parts: tuple[Part, ...] = ()
        if step and before is not None:
            parts, arrays = self._encode_step(before, version, arrays, mask)
        snapshot = encode_update(arrays, schema=self.schema, plan="lossless", mask=mask, version=version)
        blobs = self._store.blobs
        record = VersionRecord(
            run_id=self._run_id,
            round=round_,
            version=version,
            model_digest=blobs.put(snapshot),
            mask_digest=mask_digest,
            parent=before.version.model if parts and before else None,
            broadcast_digest=parts[-1].digest if parts else None,
        )
        return Prepared(version=version, arrays=arrays, mask=mask, record=record, steps=parts)

    def adopt(self, prepared: Prepared) -> None:
        """Make a committed version the latest."""
        if not prepared.steps:
            self._steps.clear()
        else:
            self._steps[prepared.version.model] = prepared.steps
            while len(self._steps) > HISTORY:
                self._steps.popitem(last=False)
        self._latest = prepared

    @property
    def kept(self) -> frozenset[str]:
        """Digests of the blobs that clients which are behind may still ask for."""
        return frozenset(part.digest for steps in self._steps.values() for part in steps)

    def restore(self, record: VersionRecord) -> None:
        """Take up a version that an earlier process committed; clients that are behind get the snapshot."""
        blobs = self._store.blobs
        mask = decode_mask_set(
            blobs.open(record.mask_digest),
            schema=self.schema,
            version=record.version.mask,
            base=None,
            limits=self._limits,
        )
        arrays = decode_update(blobs.open(record.model_digest), schema=self.schema, mask=mask, limits=self._limits)
        self._latest = Prepared(version=record.version, arrays=arrays, mask=mask, record=record, steps=())

    def parts(self, held: Version | None, want: Version) -> tuple[Part, ...]:
        """What to send to who holds `held` and wants `want`, which must be the latest."""
        latest = self.latest
        if want != latest.version:
            raise VersionError(
                "this version is not to be had any more", seen=want, expected=latest.version, next_step="Ask again"
            )
        if held == want:
            return ()
        snapshot = self._snapshot(held)
        chain = self._chain(held)
        if chain is not None and sum(p.size for p in chain) <= sum(p.size for p in snapshot):
            return chain
        return snapshot

    def _chain(self, held: Version | None) -> tuple[Part, ...] | None:
        if held is None or held.shape != self.latest.version.shape:
            return None
        missing = range(held.model + 1, self.latest.version.model + 1)
        if not missing or any(model not in self._steps for model in missing):
            return None
        steps = tuple(part for model in missing for part in self._steps[model])
        return steps if steps[0].base == held else None

    def _snapshot(self, held: Version | None) -> tuple[Part, ...]:
        latest = self.latest
        record = latest.record
        model = self._part(PartKind.MODEL, latest.version, None, record.model_digest)
        if held is not None and held.mask == latest.version.mask:
            return (model,)
        return self._part(PartKind.MASK, latest.version, None, record.mask_digest), model

    def _put_mask(self, mask: Mask, before: Prepared | None) -> str:
        if before is not None and before.mask.version == mask.version:
            return before.record.mask_digest
        return self._store.blobs.put(encode_mask_set(mask))

    def _encode_step(
        self, before: Prepared, version: Version, arrays: Arrays, mask: Mask
    ) -> tuple[tuple[Part, ...], Arrays]:
        frame = encode_update(
            arrays, schema=self.schema, plan="lossless", mask=mask, base=before.arrays, version=version
        )
        delta = self._part(PartKind.DELTA, version, before.version, self._store.blobs.put(frame))
        if before.mask.version == mask.version:
            return (delta,), arrays
        change = self._store.blobs.put(encode_mask_set(mask, base=before.mask))
        between = Version(shape=version.shape, model=before.version.model, mask=mask.version)
        return (
            self._part(PartKind.MASK, between, before.version, change),
            self._part(PartKind.DELTA, version, between, delta.digest),
        ), arrays

    def _part(self, kind: PartKind, version: Version, base: Version | None, digest: str) -> Part:
        size = len(self._store.blobs.open(digest))
        return Part(kind=kind, version=version, base=base, digest=digest, size=size)
