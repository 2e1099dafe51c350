"""Clients that exchange weights in masks of their own: all of them together, and pruned back to one (FedDST).

A client drops its smallest weights and grows those with its largest gradients, trains that for a round, and only then
is anything averaged (Bibikar et al. 2022): a weight that was grown and not yet trained would be averaged in as a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedprune.mask import Bits, Mask
from fedprune.pruning import LayerDecision, Selection, Share, magnitudes, select
from fedprune.pruning.floors import Floors
from fedprune.pruning.votes import Ballot
from fedprune_server.proposal import Proposal, Weights, proposed


def together(round: int, ballots: Sequence[Ballot], mask: Mask, version: int) -> Proposal:
    """What any of the clients wants to train, and each one's own mask in it."""
    alive = {n: np.logical_or.reduce([b.mask.alive[n] for b in ballots]) for n in mask.alive}
    own = {
        b.client: Mask(schema=mask.schema, version=version + place, alive=b.mask.alive)
        for place, b in enumerate(sorted(ballots, key=lambda b: b.client), start=1)
    }
    layers = tuple(_exchanged(name, bits, mask.alive[name]) for name, bits in alive.items())
    chosen = Selection(mask=Mask(schema=mask.schema, version=version, alive=alive), layers=layers)
    return replace(proposed(round, chosen, mask.density), own=own)


def _exchanged(name: str, after: Bits, before: Bits) -> LayerDecision:
    grown = int(np.count_nonzero(after & ~before))
    return LayerDecision(
        name=name,
        before=int(np.count_nonzero(before)),
        after=int(np.count_nonzero(after)),
        threshold=None,
        score="gradient",
        floor_trimmed=0,
        grown=grown,
    )


def settled(round: int, weights: Weights, mask: Mask, version: int, *, like: Mask, floors: Floors) -> Proposal:
    """What was trained under `mask`, pruned back by size to as many weights of each layer as `like` has."""
    counts = [Share(names=(n,), keep=int(np.count_nonzero(bits))) for n, bits in like.alive.items()]
    chosen = select(magnitudes(mask.schema, weights), mask, counts, floors, version, score="magnitude")
    return proposed(round, chosen, like.density)
