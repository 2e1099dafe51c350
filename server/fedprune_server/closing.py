"""What happens between the last receipt of a round and its commit: fold, prune, encode, evaluate.

Everything here blocks and runs in one thread at a time. The result depends on the accepted set and the version
before it, and on nothing else, so a coordinator that is killed in the middle does it again and gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedprune.mask import Mask
from fedprune.tensor import Role
from fedprune.work import UploadPlan
from fedprune_server import approval, scores
from fedprune_server.aggregation import Options, aggregator
from fedprune_server.incoming import Incoming
from fedprune_server.levels import Levels
from fedprune_server.prepared import Arrays, Prepared
from fedprune_server.proposal import Need, Proposal
from fedprune_server.pruner import Pruner
from fedprune_server.scores import Heard
from fedprune_server.store import ReceiptRecord, Store, Work
from fedprune_server.trials import ControlState
from fedprune_server.versions import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What an evaluation found: metrics by name, averaged over `examples`."""

    examples: int
    metrics: dict[str, float]


class Evaluator(Protocol):
    """Scores a model on data that the coordinator itself has."""

    def __call__(self, arrays: Arrays) -> Score: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A round that is folded, pruned and encoded, ready to be committed."""

    receipts: tuple[ReceiptRecord, ...]
    prepared: Prepared
    proposal: Proposal | None
    score: Score | None
    evaluation_s: float
    warnings: tuple[str, ...] = ()
    # The mask has changed, and clients are to measure the running statistics anew before anybody evaluates.
    remeasure: bool = False

    @property
    def judge(self) -> bool:
        """Whether a pruning step waits for what clients find about this version."""
        return approval.awaits_evaluation(self.prepared.kept.control)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remeasured:
    """The version whose statistics were measured under its mask, none where no client did; and what the coordinator's
    evaluation says of it, where one is due."""

    prepared: Prepared | None
    score: Score | None
    evaluation_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The parts of one run that turn an accepted set into the next version."""

    store: Store
    versions: Versions
    incoming: Incoming
    pruner: Pruner
    evaluate: Evaluator | None
    due: Callable[[int], bool]
    broadcast: Callable[[int], UploadPlan]
    clock: Callable[[], float]
    # Whether running statistics are measured anew after a change of the mask.
    remeasures: bool = False

    def need(self, round_: int) -> Need | None:
        """What the clients must find out before this round can be closed."""
        return self.pruner.needs(round=round_, mask=self.versions.latest.mask)

    def evaluates(self, round_: int) -> bool:
        """Whether closing this round takes an evaluation on the coordinator's own data."""
        return self.evaluate is not None and self.due(round_)

    def close(self, round_: int) -> Closed:
        """Freeze the accepted set and make the next version of it. Commits nothing."""
        if round_ == 0:
            return self._close_priming()
        receipts = self.store.freeze(self.versions.run_id, round_, Work.TRAIN)
        before = self.versions.latest
        folded, clients = self.incoming.fold(receipts, before)
        arrays = folded.arrays
        self.pruner.observe(round=round_, weights=arrays, mask=before.mask, clients=clients)
        self.incoming.forget()
        proposal, warnings, control = self._next_mask(round_, arrays)
        mask = proposal.mask if proposal else before.mask
        if proposal:
            mask.apply(arrays)
        prepared = self.versions.prepare(
            arrays,
            mask,
            round_=round_,
            plan=self.broadcast(round_),
            levels=self._levels(round_, arrays, mask, proposal),
            optimizer=folded.state,
            beliefs=self.pruner.beliefs.arrays() if self.pruner.beliefs else None,
            control=control,
        )
        remeasure = self.remeasures and proposal is not None
        score, evaluation_s = (None, 0.0) if remeasure else self._evaluate(round_, prepared.arrays)
        return Closed(
            receipts=receipts,
            prepared=prepared,
            proposal=proposal,
            score=score,
            evaluation_s=evaluation_s,
            warnings=(*folded.warnings, *warnings),
            remeasure=remeasure,
        )

    def remeasure(self, round_: int) -> Remeasured:
        """Freeze what clients measured of the latest version under its mask, and make the next version of it: the same
        weights, the statistics of all clients together. Commits nothing."""
        # A client that was asked again after a restart counts once.
        found = list({r.client: r for r in self.store.freeze(self.versions.run_id, round_, Work.REESTIMATE)}.values())
        before = self.versions.latest
        prepared = self._with_statistics(round_, found, before) if found else None
        score, evaluation_s = self._evaluate(round_, (prepared or before).arrays)
        return Remeasured(prepared=prepared, score=score, evaluation_s=evaluation_s)

    def _with_statistics(self, round_: int, found: Sequence[ReceiptRecord], before: Prepared) -> Prepared:
        inputs = self.incoming.inputs(found, before)
        folded = aggregator("fedavg", Options()).fold(self.versions.schema, before.arrays, before.mask, inputs, {})
        self.incoming.forget()
        statistics = {spec.name: folded.arrays[spec.name] for spec in self.versions.schema.of(Role.BUFFER)}
        return self.versions.prepare(
            {**before.arrays, **statistics},
            before.mask,
            round_=round_,
            plan=self.broadcast(round_),
            levels=before.levels,
            optimizer=before.kept.optimizer,
            beliefs=before.kept.beliefs,
            control=before.kept.control,
        )

    def _evaluate(self, round_: int, arrays: Arrays) -> tuple[Score | None, float]:
        """What the coordinator finds on its own data, where that is due, and the seconds it takes."""
        began_s = self.clock()
        score = self.evaluate(arrays) if self.evaluate is not None and self.due(round_) else None
        return score, self.clock() - began_s

    def _close_priming(self) -> Closed:
        """The first weights under a mask that the clients' scores chose: no training, and nothing but the mask to send."""
        before = self.versions.latest
        arrays = {name: np.array(array) for name, array in before.arrays.items()}
        proposal, warnings = self._propose(0, arrays)
        mask = proposal.mask if proposal else before.mask
        mask.apply(arrays)
        levels = self._levels(0, arrays, mask, proposal)
        prepared = self.versions.prepare(arrays, mask, round_=0, plan=UploadPlan(), levels=levels)
        return Closed(
            receipts=(), prepared=prepared, proposal=proposal, score=None, evaluation_s=0.0, warnings=warnings
        )

    def _levels(self, round_: int, arrays: Arrays, mask: Mask, proposal: Proposal | None) -> Levels:
        """The masks of clients that hold a part of the model: cut anew with the run's mask, and every few rounds; or as the
        clients proposed them."""
        before = self.versions.latest
        if proposal is not None and proposal.own:
            return {float(client): own for client, own in proposal.own.items()}
        if mask is before.mask and not self.pruner.cuts(round_):
            return before.levels
        newest = max(before.newest_mask, mask.version)
        return self.pruner.cut(weights=arrays, mask=mask, first_version=newest + 1)

    def _next_mask(self, round_: int, arrays: Arrays) -> tuple[Proposal | None, tuple[str, ...], ControlState | None]:
        """By the controller where a run has one, else by the schedule."""
        control, before = self.versions.control, self.versions.latest
        if control is None:
            return *self._propose(round_, arrays), None
        tried = approval.attempt(
            control, self.pruner, round=round_, weights=arrays, mask=before.mask, before=before.version
        )
        return tried.proposal, (), tried.state

    def _propose(self, round_: int, arrays: Arrays) -> tuple[Proposal | None, tuple[str, ...]]:
        mask, need = self.versions.latest.mask, self.need(round_)
        heard = Heard()
        if need is not None:
            receipts = self.store.freeze(self.versions.run_id, round_, Work.SCORE)
            if not receipts:
                return None, ("the mask stays as it is: no client sent what its next step needs",)
            heard = scores.hear(receipts, self.store, need, mask, self.versions.latest.version)
        proposal = self.pruner.propose(
            round=round_,
            weights=arrays,
            mask=mask,
            next_mask_version=self.versions.latest.newest_mask + 1,
            scores=heard.scores,
            growth=heard.growth,
            ballots=heard.ballots,
            own=tuple(self.versions.latest.levels.values()) if self.pruner.readjusts else (),
        )
        return proposal, _disagreement(proposal)


def _disagreement(proposal: Proposal | None) -> tuple[str, ...]:
    """A sentence where the clients' masks have little in common: most of what they want together goes by size then."""
    if proposal is None or proposal.merged_density is None:
        return ()
    merged, target = proposal.merged_density, proposal.target_density
    return (f"the clients' masks do not agree: merged they keep {merged:.3g} of the weights, the budget {target:.3g}",)


def average(receipts: Sequence[ReceiptRecord], metrics: Sequence[dict[str, float]]) -> Score | None:
    """The example-weighted mean of what clients found on their held-out shares; None when nobody had an example."""
    examples = sum(r.examples for r in receipts)
    if examples == 0:
        return None
    names = sorted({name for found in metrics for name in found})
    sums = {n: sum(r.examples * m.get(n, 0.0) for r, m in zip(receipts, metrics, strict=True)) for n in names}
    counts = {n: sum(r.examples for r, m in zip(receipts, metrics, strict=True) if n in m) for n in names}
    return Score(examples=examples, metrics={n: sums[n] / counts[n] for n in names if counts[n]})
