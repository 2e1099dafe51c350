"""What comes in from a run's clients: checked as it arrives, so that whatever has a receipt can be folded, then folded.

Where the rule of aggregation allows it, updates are summed while they come in, and folding is a division; else they are
read again, from the blobs that their receipts name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fedprune.codec import Limits, UpdateReader
from fedprune.errors import VersionError
from fedprune.mask import Mask
from fedprune.pruning.beliefs import Judged
from fedprune.tensor import Version
from fedprune_server import scores
from fedprune_server.aggregation import Aggregator, Folded, FoldInput
from fedprune_server.aggregation.sums import Sums, begin
from fedprune_server.arriving import Arriving
from fedprune_server.decoded import Decoded
from fedprune_server.judging import judged
from fedprune_server.prepared import Prepared
from fedprune_server.pruner import Pruner
from fedprune_server.store import AssignmentRecord, ReceiptRecord, Store, Work
from fedprune_server.versions import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """The results of one run's clients: `check` each before it gets its receipt, `fold` those that have one."""

    store: Store
    versions: Versions
    aggregator: Aggregator
    pruner: Pruner
    decoded: Decoded = field(default_factory=Decoded)
    arriving: Arriving = field(default_factory=Arriving)

    @property
    def max_update_bytes(self) -> int:
        """Largest update that can be of this model."""
        return Limits.of_update(self.versions.schema).max_bytes

    def check(
        self,
        assignment: AssignmentRecord,
        version: Version,
        data: memoryview,
        *,
        sha256: str,
        party: str,
        examples: int,
    ) -> None:
        """Raise `RemoteError` unless this update can be folded: decodable, of the assigned version, finite."""
        latest, mask = self.versions.latest, self.versions.latest.mask_of(assignment.version)
        if assignment.kind is Work.EVALUATE or mask is None:
            return  # nothing to check; or its round is closed: the store says so in its receipt
        if assignment.kind is Work.SCORE:
            scores.check(assignment, data, latest.mask, examples=examples)
            return
        reader = self._reader(data, latest, mask)
        if reader.version != version:
            raise VersionError(
                "frame and announcement name different versions", party=party, seen=reader.version, expected=version
            )
        if assignment.kind is Work.REESTIMATE:
            self._check(latest, party, examples, sha256, reader, mask)
            return
        own = None if mask is latest.mask else mask
        self.arriving.add(
            latest.version,
            (assignment.assignment_id, sha256, examples),
            FoldInput(party=party, examples=examples, content=reader.content, open=partial(iter, reader), mask=own),
            begin=partial(self._begin, latest),
            check=partial(self._check, latest, party, examples, sha256, reader, mask),
        )

    def _begin(self, latest: Prepared) -> Sums | None:
        """A pruner that looks at each client's weights wants them decoded, one beside the other."""
        if self.pruner.beliefs is not None:
            return None
        return begin(self.aggregator, self.versions.schema, latest.arrays, latest.mask)

    def _check(
        self, latest: Prepared, party: str, examples: int, sha256: str, reader: UpdateReader, mask: Mask
    ) -> None:
        update = self._input(party, examples, sha256, lambda: reader, mask)
        self.aggregator.check(self.versions.schema, latest.arrays, latest.mask, update)

    def fold(self, receipts: Sequence[ReceiptRecord], before: Prepared) -> tuple[Folded, list[Judged]]:
        """The accepted updates in one, and what a pruner may ask of each of them."""
        sums = self.arriving.take((r.assignment_id, r.sha256, r.examples) for r in receipts)
        if sums is not None:
            return sums.finish([f"client {r.client}" for r in receipts], before.kept.optimizer), []
        inputs = self.inputs(receipts, before)
        folded = self.aggregator.fold(self.versions.schema, before.arrays, before.mask, inputs, before.kept.optimizer)
        return folded, judged(inputs, before.arrays, before.mask)

    def inputs(self, receipts: Sequence[ReceiptRecord], before: Prepared) -> list[FoldInput]:
        """The accepted results, as they are folded."""
        return [self._accepted(receipt, before) for receipt in receipts]

    def forget(self) -> None:
        """The round is folded: what was decoded for it is not needed any more."""
        self.decoded.clear()

    def _accepted(self, receipt: ReceiptRecord, before: Prepared) -> FoldInput:
        mask = self._mask_of(receipt) if before.levels else before.mask

        def read() -> UpdateReader:
            return self._reader(self.store.blobs.open(receipt.sha256), before, mask)

        return self._input(f"client {receipt.client}", receipt.examples, receipt.sha256, read, mask)

    def _mask_of(self, receipt: ReceiptRecord) -> Mask:
        """What the client held when it was given the work that this receipt is for."""
        given = self.store.assignment(self.versions.run_id, receipt.assignment_id)
        mask = self.versions.latest.mask_of(given.version) if given else None
        assert mask is not None, "a receipt of the open round is for an assignment of the latest version"
        return mask

    def _input(self, party: str, examples: int, sha256: str, read: Callable[[], UpdateReader], mask: Mask) -> FoldInput:
        opened = self.decoded.open(sha256, read)
        own = None if mask is self.versions.latest.mask else mask
        return FoldInput(party=party, examples=examples, content=opened.content, open=opened.tensors, mask=own)

    def _reader(self, data: memoryview, before: Prepared, mask: Mask) -> UpdateReader:
        limits = Limits.of_update(self.versions.schema, mask)
        return UpdateReader(data, schema=self.versions.schema, mask=mask, base=before.arrays, limits=limits)
