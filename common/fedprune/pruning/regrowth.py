"""Prune and regrow at a fixed budget: a layer gives up its smallest weights and takes others on in their place.

The number of alive weights of each layer never changes, and nothing grows back in the step that dropped it: candidates
are weights that were dead *before* the step. Where there are too few candidates, or floors keep what was to go, the
step exchanges fewer weights and still ends with the same count. The same function serves a client that readjusts its
own mask by its own gradients (FedDST, Bibikar et al. 2022) and a coordinator that grows what the clients' gradients
voted for (FedTiny, Huang et al. 2023). Grown weights start at 0: that is the caller's to see to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Bits, Indices, Mask
from fedprune.pruning.floors import Floors, Scores, top
from fedprune.pruning.selection import LayerDecision, Share, select, with_grown
from fedprune.tensor import Schema


def exchange_share(round: int, last_round: int, amount: float) -> float:
    """The share of a layer's alive weights to exchange after `round`: (a / 2)(1 + cos(pi t / T_end)), `amount` at the
    start and 0 from `last_round` on (Dettmers & Zettlemoyer 2019; used by FedDST, FedTiny and FedRTS)."""
    if not 0.0 <= amount <= 1.0 or last_round < 1:
        raise LocalError("no such exchange", seen=f"{amount} until round {last_round}", expected="a share, 1 round up")
    return 0.0 if round >= last_round else amount / 2 * (1 + cos(pi * round / last_round))


def exchange_counts(mask: Mask, share: float) -> dict[str, int]:
    """How many weights each layer exchanges: floor(share * alive), as far as it has dead ones to grow."""
    counts = {}
    for name, bits in mask.alive.items():
        alive = int(np.count_nonzero(bits))
        counts[name] = min(int(share * alive + 1e-9), bits.size - alive)
    return counts


def check_readjusts_before_training(step: int, steps: int) -> None:
    """Raise `LocalError` unless a client that readjusts its mask before local step `step` (from 0) trains after it.

    Weights grown after the last step are averaged in as zeros, and growth shrinks the model instead of helping it."""
    if not 0 <= step < steps:
        raise LocalError(
            "a mask readjusted after the last local step grows only zeros",
            seen=f"readjusted before step {step} of {steps}",
            expected=f"0 to {steps - 1}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The next mask, why, and the flat positions that went and came, by layer, ascending."""

    mask: Mask
    layers: tuple[LayerDecision, ...]
    dropped: Mapping[str, Indices]
    grown: Mapping[str, Indices]


def exchange(
    magnitude: Mapping[str, Scores],
    growth: Mapping[str, Scores],
    mask: Mask,
    counts: Mapping[str, int],
    floors: Floors,
    version: int,
    *,
    score: str,
) -> Exchange:
    """Drop up to `counts[name]` of the smallest alive weights of each layer, grow as many dead ones.

    `growth[name]`, of the tensor's shape, ranks the candidates: the largest grow; 0 or less is no candidate. Alive
    weights are never candidates, whatever their growth score."""
    candidates = {n: _candidates(growth[n], bits) for n, bits in mask.alive.items()}
    wanted = {n: min(counts[n], int(np.count_nonzero(c > 0))) for n, c in candidates.items()}
    shares = [Share(names=(n,), keep=int(np.count_nonzero(b)) - wanted[n]) for n, b in mask.alive.items()]
    kept = select(magnitude, mask, shares, floors, version, score=score)
    going = {n: bits & ~kept.mask.alive[n] for n, bits in mask.alive.items()}
    coming = {n: top(c, int(np.count_nonzero(going[n]))).reshape(going[n].shape) for n, c in candidates.items()}
    alive = {n: bits | coming[n] for n, bits in kept.mask.alive.items()}
    return Exchange(
        mask=Mask(schema=mask.schema, version=version, alive=alive),
        layers=tuple(with_grown(layer, coming[layer.name]) for layer in kept.layers),
        dropped={n: np.flatnonzero(bits) for n, bits in going.items()},
        grown={n: np.flatnonzero(bits) for n, bits in coming.items()},
    )


def _candidates(growth: Scores, alive: Bits) -> Scores:
    if growth.shape != alive.shape:
        raise LocalError("growth scores do not fit", seen=list(growth.shape), expected=list(alive.shape))
    return np.where(alive, np.float32(-np.inf), growth).reshape(-1).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthVote:
    """What one client would grow: by layer the flat positions of its largest gradients among the dead weights and,
    where they travel, those gradients; `examples` is the client's weight."""

    client: int
    examples: int
    indices: Mapping[str, Indices]
    gradients: Mapping[str, NDArray[np.float32]] | None = None

    def check(self, mask: Mask, counts: Mapping[str, int]) -> None:
        """Raise `UpdateError`, naming the client, where this is no vote on `counts` dead weights of each layer."""
        party = f"client {self.client}"
        if self.examples < 1 or self.indices.keys() != counts.keys():
            raise UpdateError("a vote on other layers than asked for, or without examples", party=party)
        for name, places in self.indices.items():
            alive = mask.alive[name].reshape(-1)
            problem = _fault(places, alive, counts[name])
            if problem:
                raise UpdateError(f"its vote on {name!r} {problem}", party=party, seen=f"{places.size} positions")
            values = None if self.gradients is None else self.gradients.get(name)
            if self.gradients is not None and (values is None or values.shape != places.shape):
                raise UpdateError(f"its vote on {name!r} has another number of gradients", party=party)
            if values is not None and not np.isfinite(values).all():
                raise UpdateError(f"its vote on {name!r} has gradients that are not finite", party=party)


def largest_dead(
    gradients: Mapping[str, NDArray[np.float32]], mask: Mask, counts: Mapping[str, int]
) -> dict[str, Indices]:
    """What a client votes for: by layer the flat positions, ascending, of the `counts[name]` largest |gradient| among
    the weights that are dead in `mask`; ties go to the lower position."""
    found = {}
    for name, bits in mask.alive.items():
        count = min(counts[name], int(np.count_nonzero(~bits)))
        found[name] = np.flatnonzero(top(_candidates(np.abs(gradients[name]), bits), count))
    return found


def _fault(places: Indices, alive: Bits, count: int) -> str | None:
    if places.size > count:
        return f"names more than {count} weights"
    if places.size and (places[0] < 0 or places[-1] >= alive.size or (np.diff(places) <= 0).any()):
        return "names positions that are not ascending within the layer"
    return "names weights that are alive" if alive[places].any() else None


def tally_growth(schema: Schema, votes: Sequence[GrowthVote]) -> dict[str, Scores]:
    """Growth scores from checked votes: |example-weighted mean gradient| where gradients travelled (FedTiny), else
    the share of examples that voted for the weight. In [0, ...); 0 where nobody did."""
    total = sum(vote.examples for vote in votes)
    if total == 0:
        raise LocalError("nobody voted on what to grow", next_step="Wait for clients, or skip the exchange")
    ordered = sorted(votes, key=lambda vote: vote.client)
    return {t.name: _tally(t.shape, t.name, ordered, total) for t in schema.prunable}


def _tally(shape: tuple[int, ...], name: str, votes: Sequence[GrowthVote], total: int) -> Scores:
    sums = np.zeros(shape, np.float64).reshape(-1)
    for vote in votes:
        values: NDArray[np.float32] | float = 1.0 if vote.gradients is None else vote.gradients[name]
        sums[vote.indices[name]] += np.multiply(values, vote.examples / total)
    return np.abs(sums).astype(np.float32).reshape(shape)
