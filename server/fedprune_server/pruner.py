"""Proposes the next mask.

The pruner is asked once a round, after the aggregate of that round is known and before it is committed (and once with
round 0, before the first). It answers from the round, the weights and the mask, by a schedule fixed at the start, so a
coordinator that restarts asks again and gets the same answer. Only Beta posteriors have a memory, which the store
keeps (`beliefs`). It decides nothing about clients and commits nothing: what it needs of them it says (`needs`), and
whether a proposal was good is for the controller to judge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning import (
    CostShare,
    PruningPlan,
    Selection,
    Share,
    budget,
    check_model,
    magnitudes,
    select,
    steps,
)
from fedprune.pruning.beliefs import Beliefs, Judged
from fedprune.pruning.budgets import absolute_threshold, mean_threshold
from fedprune.pruning.chain import synflow_mask
from fedprune.pruning.floors import Scores
from fedprune.pruning.nested import nested_masks
from fedprune.pruning.regrowth import GrowthVote, exchange, exchange_counts, exchange_share, tally_growth
from fedprune.pruning.schedules import exchange_rounds, last_exchange
from fedprune.pruning.scores import FROM_CLIENTS, lamp, randoms, within_rows
from fedprune.pruning.votes import Ballot, merge
from fedprune.tensor import Schema
from fedprune_server import readjusting
from fedprune_server.proposal import Need, Proposal, Weights, proposed


class Pruner:
    """Pruning by a plan. Raises `LocalError` when built with a plan that `rounds` cannot hold.

    `seed` is the run's; `cost[name]` the multiply-adds of one weight, for plans that measure cost."""

    def __init__(
        self, plan: PruningPlan, rounds: int, *, seed: int = 0, cost: Mapping[str, float] | None = None
    ) -> None:
        self.plan, self.seed, self.cost = plan, seed, cost
        self.steps = steps(plan, rounds)
        self._densities = {step.round: step.density for step in self.steps}
        self._exchanges = frozenset(exchange_rounds(plan, rounds))
        self._last_exchange = last_exchange(plan, rounds)
        # Before the first round the rank is that of the first weights: the first cuts are guesses, and are mended.
        self._cuts = frozenset(range(0, self._last_exchange + 1, plan.every))
        self.beliefs: Beliefs | None = None

    def check(self, schema: Schema) -> None:
        """Raise `LocalError` where plan and model do not go together; ask before the run starts."""
        check_model(self.plan, schema, self.cost)
        if self.plan.regrow == "posterior" and self._exchanges:
            self.beliefs = Beliefs(schema, gamma=self.plan.gamma, rate=self.plan.rate)

    @property
    def scored_rounds(self) -> frozenset[int]:
        """The rounds that `propose` may need something of the clients for; 0: before the first."""
        by_method = frozenset(self._densities) if self.plan.method in FROM_CLIENTS else frozenset[int]()
        return by_method | self._exchanges

    def needs(self, *, round: int, mask: Mask) -> Need | None:
        """What clients must send before `propose` for `round`; None in most rounds. `mask` is the one in force."""
        if round in self._densities and self.plan.method in FROM_CLIENTS:
            keep = self._budget(self._densities[round], mask) if self.plan.merge else ()
            return Need(method=self.plan.method, keep=tuple(share.keep for share in keep))
        if round in self._exchanges:
            counts, how = self._counts(round, mask), self.plan.regrow
            return Need(method="gradient", grow=counts, values=how == "gradient", own=how == "local")
        return None

    def propose(
        self,
        *,
        round: int,
        weights: Weights,
        mask: Mask,
        next_mask_version: int,
        scores: Mapping[str, Scores] | None = None,
        growth: Sequence[GrowthVote] = (),
        ballots: Sequence[Ballot] = (),
        own: Collection[Mask] = (),
    ) -> Proposal | None:
        """The mask to commit with round `round` (counted from 1; 0: with the first weights), or None when the schedule
        asks for nothing.

        `weights` is the aggregate of the round, name -> array of the tensor's shape; `scores`, `growth` and `ballots`
        (checked) are what `needs` asked for, and `own` the masks that clients have for themselves so far. Where the floors hold everything that was to go, the proposal still comes, so that
        nobody takes a step that did nothing for one not taken.
        """
        if round in self._densities and self.plan.merge:
            density = self._densities[round]
            return self.merge(
                ballots,
                self.plan.merge,
                round=round,
                weights=weights,
                mask=mask,
                next_mask_version=next_mask_version,
                shares=self._budget(density, mask),
            )
        if round in self._densities:
            return self.bring(
                self._densities[round],
                round=round,
                weights=weights,
                mask=mask,
                next_mask_version=next_mask_version,
                scores=scores,
            )
        if own:
            return readjusting.settled(
                round, weights, mask, next_mask_version, like=next(iter(own)), floors=self.plan.floors
            )
        if round in self._exchanges and ballots:
            return readjusting.together(round, ballots, mask, next_mask_version)
        if round in self._exchanges and growth:
            return self._exchange(round, weights, mask, next_mask_version, growth)
        return None

    def bring(
        self,
        density: float,
        *,
        round: int,
        weights: Weights,
        mask: Mask,
        next_mask_version: int,
        scores: Mapping[str, Scores] | None = None,
    ) -> Proposal | None:
        """The mask at `density`, whatever the schedule says; None where `mask` is already that sparse."""
        if self._is_within(density, mask):
            return None
        chosen = self._select(density, round, weights, mask, next_mask_version, scores)
        target = density if self.plan.threshold is None else chosen.mask.density
        return proposed(round, chosen, target)

    def observe(self, *, round: int, weights: Weights, mask: Mask, clients: Sequence[Judged] = ()) -> None:
        """Let the posteriors learn from a round's aggregate and, where given, its clients; before `propose`. Does
        nothing for other plans, and nothing before the first round, when all weights are alive and none was chosen."""
        if self.beliefs is not None and round > 0:
            counts = self._counts(round, mask)
            core = {name: int(np.count_nonzero(bits)) - counts[name] for name, bits in mask.alive.items()}
            self.beliefs.observe(mask, magnitudes(mask.schema, weights), clients, core)

    def merge(
        self,
        ballots: Sequence[Ballot],
        rule: str,
        *,
        round: int,
        weights: Weights,
        mask: Mask,
        next_mask_version: int,
        shares: Sequence[Share] | None = None,
    ) -> Proposal:
        """The clients' own masks (checked) made one by `rule`, then pruned back to `shares` by |w|; without them, layer by
        layer, to the counts of `mask`."""
        merged = merge(ballots, rule, self.plan.floors, next_mask_version, quorum=self.plan.quorum)
        counts = [Share(names=(n,), keep=int(np.count_nonzero(bits))) for n, bits in mask.alive.items()]
        target = mask.density if shares is None else sum(share.keep for share in shares) / mask.size
        ranked, floors = magnitudes(mask.schema, weights), self.plan.floors
        chosen = select(ranked, merged.mask, shares or counts, floors, next_mask_version, score="magnitude")
        disagreed = merged.mask.density if merged.densified(target) else None
        return replace(proposed(round, chosen, target), merged_density=disagreed)

    def _budget(self, density: float, mask: Mask) -> Sequence[Share]:
        """What clients may propose, and what is left of their masks: counted over all layers together, or over each."""
        shares = budget(self.plan, density, mask.schema, self.cost)
        if not isinstance(shares, CostShare) and len(shares) not in (1, len(mask.alive)):
            shares = budget(replace(self.plan, spread="uniform"), density, mask.schema, self.cost)
        assert not isinstance(shares, CostShare), "proposals are counted in weights: the plan was checked"
        return shares

    @property
    def readjusts(self) -> bool:
        """Whether clients exchange weights in masks of their own."""
        return self.plan.schedule == "regrow" and self.plan.regrow == "local"

    def cuts(self, round: int) -> bool:
        """Whether the masks of clients that hold a part of the model are cut anew after this round, its mask changed or
        not."""
        return bool(self.plan.levels) and round in self._cuts

    def cut(self, *, weights: Weights, mask: Mask, first_version: int) -> Mapping[float, Mask]:
        """The masks of clients that hold a part of `mask`, by level, under versions from `first_version` on: nested, by one
        global rank of LAMP scores: by |w| alone the small levels would starve the layers whose weights are small."""
        ranked = {n: lamp(s, mask.alive[n]) for n, s in magnitudes(mask.schema, weights).items()}
        return nested_masks(ranked, mask, self.plan.levels, self.plan.floors, first_version)

    def _select(
        self,
        density: float,
        round: int,
        weights: Weights,
        mask: Mask,
        version: int,
        scores: Mapping[str, Scores] | None,
    ) -> Selection:
        plan = self.plan
        if plan.method == "synflow" and scores is None:
            return synflow_mask(weights, mask, density, plan.floors, version)
        ranked = self._scores(weights, mask, scores)
        if plan.threshold is not None:
            kind, value = plan.threshold
            rule = absolute_threshold if kind == "absolute" else mean_threshold
            # Before the first round a threshold that empties a layer is a mistake to be told; later it is a fact.
            parts: Sequence[Share] | CostShare = rule(ranked, mask, value, strict=round == 0)
        else:
            parts = budget(plan, density, mask.schema, self.cost)
        return select(ranked, mask, parts, plan.floors, version, score=plan.method)

    def _is_within(self, density: float, mask: Mask) -> bool:
        """Whether `mask` is at `density`, or below it, already."""
        if self.plan.threshold is not None:
            return False
        parts = budget(self.plan, density, mask.schema, self.cost)
        if isinstance(parts, CostShare):
            alive = {name: int(np.count_nonzero(bits)) for name, bits in mask.alive.items()}
            return sum(parts.cost[name] * count for name, count in alive.items()) <= parts.budget
        return mask.alive_count <= sum(part.keep for part in parts)

    def _scores(self, weights: Weights, mask: Mask, scores: Mapping[str, Scores] | None) -> Mapping[str, Scores]:
        plan = self.plan
        if plan.method == "random":
            return randoms(mask.schema, np.random.default_rng(self.seed))
        if plan.method == "magnitude":
            ranked = magnitudes(mask.schema, weights)
            return {n: lamp(s, mask.alive[n]) for n, s in ranked.items()} if plan.spread == "lamp" else ranked
        if scores is None:
            raise LocalError(
                f"pruning.method = {plan.method} needs the clients' scores",
                seen="none",
                next_step="Ask `needs` before `propose`",
            )
        return {n: within_rows(s, mask.alive[n]) for n, s in scores.items()} if plan.method == "wanda" else scores

    def _exchange(
        self, round: int, weights: Weights, mask: Mask, version: int, votes: Sequence[GrowthVote]
    ) -> Proposal:
        growth = tally_growth(mask.schema, votes)
        if self.beliefs is not None:
            self.beliefs.observe_growth(mask, growth, self._counts(round, mask))
            rng = np.random.default_rng([self.seed, round])
            return proposed(round, self.beliefs.choose(mask, growth, self.plan.floors, version, rng), mask.density)
        ranked, counts = magnitudes(mask.schema, weights), self._counts(round, mask)
        done = exchange(ranked, growth, mask, counts, self.plan.floors, version, score="magnitude")
        return proposed(round, Selection(mask=done.mask, layers=done.layers), mask.density)

    def _counts(self, round: int, mask: Mask) -> dict[str, int]:
        return exchange_counts(mask, exchange_share(round, self._last_exchange, self.plan.exchange))
