"""The cheapest way for a client from what it holds to the latest version, at its level: steps, a mask alone, or a snapshot."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from fedprune.codec import encode_mask_set, encode_update
from fedprune.errors import VersionError
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.tensor import Schema, Version
from fedprune_server.levels import is_known
from fedprune_server.prepared import Prepared
from fedprune_server.store import Blobs

# Steps that are kept for clients that are behind.
HISTORY = 8
SMALL_BYTES = 1 << 18


@dataclass(slots=True, kw_only=True)
class Ways:
    """The ways that are open: steps by the model version they lead to, oldest first, from and to any mask; and snapshots
    of levels and of small models, which are made when somebody wants one, by mask version."""

    blobs: Blobs
    _steps: OrderedDict[int, tuple[tuple[Part, ...], ...]] = field(default_factory=OrderedDict)
    _on_demand: dict[int, tuple[Part, ...]] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)

    def open(self, latest: Prepared) -> None:
        """A version is the latest now."""
        self._on_demand.clear()
        if not latest.steps:
            self._steps.clear()
            return
        self._steps[latest.version.model] = (latest.steps, *latest.level_steps)
        while len(self._steps) > HISTORY:
            self._steps.popitem(last=False)

    def last_steps(self, latest: Prepared) -> tuple[tuple[Part, ...], ...]:
        """The parts that lead from the version before to the latest, for each level; none where only a snapshot does."""
        return self._steps.get(latest.version.model, ())

    def kept(self) -> set[str]:
        """Digests of all parts that somebody may still want. Grows by what is made while it is in use."""
        chains = [parts for steps in self._steps.values() for parts in steps]
        self._kept = {part.digest for chain in (*chains, *self._on_demand.values()) for part in chain}
        return self._kept

    def parts(self, latest: Prepared, held: Version | None, want: Version) -> tuple[Part, ...]:
        """What to send to who holds `held` and wants `want`, which must be the latest, at any level."""
        mask = latest.mask_of(want)
        if mask is None:
            raise VersionError(
                "this version is not to be had any more", seen=want, expected=latest.version, next_step="Ask again"
            )
        if held == want:
            return ()
        steps = self._narrowing(latest, held, want, mask) or self._chain(held, want)
        if steps is not None and mask is not latest.mask:
            return steps
        snapshot = self._snapshot(latest, mask)
        if held is not None and held.mask == mask.version:
            snapshot = snapshot[1:]
        return snapshot if steps is None or _bytes(snapshot) < _bytes(steps) else steps

    def part(self, kind: PartKind, version: Version, base: Version | None, digest: str) -> Part:
        """A part of what lies in the store."""
        return Part(kind=kind, version=version, base=base, digest=digest, size=len(self.blobs.open(digest)))

    def between(self, before: Version, held: Mask, version: Version, mask: Mask, frame: bytes) -> tuple[Part, ...]:
        """The parts of a step whose values are in `frame`; where the mask changes, that comes first."""
        digest = self.blobs.put(frame)
        if held.version == mask.version:
            return (self.part(PartKind.DELTA, version, before, digest),)
        change = self.blobs.put(encode_mask_set(mask, base=held))
        between = Version(shape=version.shape, model=before.model, mask=mask.version)
        return (
            self.part(PartKind.MASK, between, before, change),
            self.part(PartKind.DELTA, version, between, digest),
        )

    def _narrowing(self, latest: Prepared, held: Version | None, want: Version, mask: Mask) -> tuple[Part, ...] | None:
        """From one level of a version to another whose values are all there already: the mask alone."""
        known = latest.mask_of(held) if held is not None else None
        if known is None or not is_known(latest.arrays, known, mask):
            return None
        return (self.part(PartKind.MASK, want, held, self._make(encode_mask_set(mask, base=known))),)

    def _chain(self, held: Version | None, want: Version) -> tuple[Part, ...] | None:
        """The steps that lead from what is held to what is wanted; each goes up by one model version, so the search ends."""
        if held is None or want.model <= held.model:
            return () if held == want else None
        for step in self._steps.get(want.model, ()):
            if step[-1].version == want and step[0].base is not None:
                before = self._chain(held, step[0].base)
                if before is not None:
                    return (*before, *step)
        return None

    def _snapshot(self, latest: Prepared, mask: Mask) -> tuple[Part, ...]:
        whole, record = mask is latest.mask, latest.record
        if whole and not is_small(mask.schema):
            return self._snapshot_parts(latest.version, record.mask_digest, record.model_digest)
        if mask.version not in self._on_demand:
            version = replace(latest.version, mask=mask.version)
            held = record.mask_digest if whole else self._make(encode_mask_set(mask))
            model = encode_update(latest.arrays, schema=mask.schema, mask=mask, version=version)
            self._on_demand[mask.version] = self._snapshot_parts(version, held, self._make(model))
        return self._on_demand[mask.version]

    def _snapshot_parts(self, version: Version, mask: str, model: str) -> tuple[Part, ...]:
        return self.part(PartKind.MASK, version, None, mask), self.part(PartKind.MODEL, version, None, model)

    def _make(self, frame: bytes) -> str:
        # Named first: whoever tidies meanwhile must not take it for garbage.
        self._kept.add(hashlib.sha256(frame).hexdigest())
        return self.blobs.put(frame)


def is_small(schema: Schema) -> bool:
    """Whether versions of this model are stored as they are: a snapshot that hardly anybody asks for is coded when somebody
    does, in a millisecond or two."""
    return schema.dense_bytes <= SMALL_BYTES


def _bytes(parts: tuple[Part, ...]) -> int:
    return sum(part.size for part in parts)
