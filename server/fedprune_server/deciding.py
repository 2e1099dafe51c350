"""What happens between the last evaluation of a round and its end: averaged for the report, judged by the controller.

Everything follows from the frozen set of results, so that a coordinator that is killed in between decides the same
again. A step that is rejected, or that nobody judged before the run ended, is undone here, but committed by the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedprune.pruning.comparison import Measured
from fedprune_server import approval
from fedprune_server.approval import Verdict
from fedprune_server.closing import Score, average
from fedprune_server.prepared import Prepared
from fedprune_server.store import ReceiptRecord, Store, Work
from fedprune_server.trials import Record
from fedprune_server.versions import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The clients' average where the report wants it (`reported`), what became of a pruning step, and the version to
    commit where that step is undone."""

    reported: bool = False
    score: Score | None = None
    record: Record | None = None
    undone: Prepared | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deciding:
    """The evaluations of one run. `reports` says of which rounds the report shows what clients found."""

    store: Store
    run_id: str
    versions: Versions
    reports: Callable[[int], bool]

    def decide(self, round_: int) -> Decision:
        """Close the evaluation of this round and draw the conclusions."""
        receipts = self._results(round_)
        score = average(receipts, [json.loads(r.metrics_json) for r in receipts])
        control = self.versions.control
        if control is None or not approval.awaits_evaluation(control):
            return Decision(reported=self.reports(round_), score=score)
        verdict = approval.judge(control, _measured(receipts))
        return self._carry_out(verdict, round_, reported=self.reports(round_), score=score)

    def end(self) -> Decision:
        """The run is over: a step on approval that nobody judged is undone."""
        control = self.versions.control
        if control is None:
            return Decision()
        return self._carry_out(approval.end(control), self.versions.latest.record.round)

    def catch_up(self, round_: int) -> None:
        """An earlier process drew its conclusions from this round, and went on without a new version: draw them again."""
        control = self.versions.control
        assert control is not None
        self.versions.control = approval.judge(control, _measured(self._results(round_))).state

    def _carry_out(
        self, verdict: Verdict, round_: int, *, reported: bool = False, score: Score | None = None
    ) -> Decision:
        self.versions.control = verdict.state
        undone = None
        if verdict.restore is not None:
            undone = self.versions.prepare_rollback(verdict.restore, round_=round_, control=verdict.state)
        return Decision(reported=reported, score=score, record=verdict.record, undone=undone)

    def _results(self, round_: int) -> list[ReceiptRecord]:
        # A client that was asked again after a restart counts once.
        return list({r.client: r for r in self.store.freeze(self.run_id, round_, Work.EVALUATE)}.values())


def _measured(receipts: Sequence[ReceiptRecord]) -> dict[str, Measured]:
    return approval.measured([(r.client, r.examples, json.loads(r.metrics_json)) for r in receipts])
