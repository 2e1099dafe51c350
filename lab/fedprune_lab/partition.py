"""Ways to cut one data set among clients, for experiments: even, skewed by label, or along lines the data has.

Each gives one array of positions per client; together they hold every example exactly once. Real federations need
none of this: there each owner already has its own data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError

Positions = NDArray[np.intp]
TRIES = 1000


def iid(examples: int, clients: int, *, seed: int) -> list[Positions]:
    """Shuffled and cut into shares whose sizes differ by at most one."""
    _check(examples, clients)
    order = np.random.default_rng(seed).permutation(examples)
    return [np.sort(part) for part in np.array_split(order, clients)]


def dirichlet(labels: NDArray[Any], clients: int, *, alpha: float, seed: int, at_least: int = 1) -> list[Positions]:
    """Each label's examples are cut in proportions drawn from Dirichlet(alpha): small `alpha`, lopsided clients (Hsu,
    Qi and Brown, 2019). Drawn again, up to 1,000 times, until each client has `at_least` examples."""
    _check(len(labels) // max(at_least, 1), clients)
    if not alpha > 0.0:
        raise LocalError("a Dirichlet partition needs a concentration above 0", seen=alpha)
    rng = np.random.default_rng(seed)
    groups = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    for _ in range(TRIES):
        parts = _cut_groups(groups, rng.dirichlet(np.full(clients, alpha), size=len(groups)))
        if min(len(part) for part in parts) >= at_least:
            return parts
    raise LocalError(
        f"no Dirichlet partition gave each of {clients} clients {at_least} examples",
        seen=f"alpha {alpha}, {TRIES} tries",
        next_step="Raise alpha, or ask for fewer clients",
    )


def shards(labels: NDArray[Any], clients: int, *, per_client: int, seed: int) -> list[Positions]:
    """Sorted by label, cut into clients x `per_client` shards, dealt at random: few labels each (McMahan et al., 2017)."""
    _check(len(labels), clients * per_client)
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * per_client)
    deal = np.random.default_rng(seed).permutation(len(pieces)).reshape(clients, per_client)
    return [np.sort(np.concatenate([pieces[i] for i in hand])) for hand in deal]


def by_id(ids: NDArray[Any], clients: int) -> list[Positions]:
    """Whole owners (writers, patients, devices) stay together: owner after owner to the client with the fewest
    examples so far, the largest first."""
    owners, counts = np.unique(ids, return_counts=True)
    _check(len(owners), clients)
    hands: list[list[Any]] = [[] for _ in range(clients)]
    sizes = [0] * clients
    for i in np.argsort(-counts, kind="stable"):
        smallest = sizes.index(min(sizes))
        hands[smallest].append(owners[i])
        sizes[smallest] += int(counts[i])
    return [np.flatnonzero(np.isin(ids, hand)) for hand in hands]


def by_size(examples: int, weights: Sequence[float], *, seed: int) -> list[Positions]:
    """Shuffled and cut in proportion to `weights`, one for each client; each gets at least one example."""
    _check(examples, len(weights))
    if min(weights) <= 0.0:
        raise LocalError("a client's weight must be above 0", seen=min(weights))
    order = np.random.default_rng(seed).permutation(examples)
    spare = examples - len(weights)
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * spare).astype(np.intp) + np.arange(1, len(weights) + 1)
    return [np.sort(part) for part in np.split(order, ends[:-1])]


def _check(available: int, clients: int) -> None:
    if not 1 <= clients <= available:
        raise LocalError("there is not enough data for so many clients", seen=clients, expected=f"1 to {available}")


def _cut_groups(groups: list[Positions], proportions: NDArray[np.float64]) -> list[Positions]:
    cuts = [
        np.split(g, np.rint(np.cumsum(p)[:-1] * len(g)).astype(np.intp))
        for g, p in zip(groups, proportions, strict=True)
    ]
    return [np.sort(np.concatenate(parts)) for parts in zip(*cuts, strict=True)]
