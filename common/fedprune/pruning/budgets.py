"""The numbers that users come with, turned into one: how many weights survive.

A tenth of the bytes, two million parameters, a compression of 20: each means a number of prunable weights once the
model's shapes are known. `Target.says` puts the result in words, with what it was stated over, because "10x" over the
prunable weights and "10x" over all of them are different networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning.floors import Scores
from fedprune.pruning.plan import keep_count
from fedprune.pruning.selection import Share
from fedprune.tensor import Role, Schema

Over = Literal["prunable", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`keep` prunable weights alive: `density` of them, `density_of_all` of all weights, free ones included."""

    keep: int
    density: float
    density_of_all: float
    says: str


def _share(value: float, over: int) -> float:
    return keep_count(value, over) if 0.0 <= value <= 1.0 else -1.0


# What a value means, given the number of weights it is stated over: how many of those stay.
KINDS: dict[str, Callable[[float, int], float]] = {
    "density": _share,
    "keep": _share,
    "sparsity": lambda value, over: _share(1.0 - value, over),
    "compression": lambda value, over: over / value if value > 0 else -1.0,
    "parameters": lambda value, over: value,
}


def target(kind: str, value: float, schema: Schema, *, over: Over = "prunable") -> Target:
    """What `kind` = `value` leaves of the model, stated over its prunable weights or over all.

    `density` and `keep` (ratio): share that stays; `sparsity`: share that goes; `compression` r: one in r stays;
    `parameters`: so many stay. Raises `LocalError` where free weights alone are more, or nothing would be left."""
    if kind not in KINDS:
        raise LocalError("no such budget", seen=kind, expected=" | ".join(KINDS))
    size, free = _sizes(schema)
    stays = KINDS[kind](value, size + free if over == "all" else size)
    return _target(stays - free if over == "all" else stays, schema, f"{kind} = {value:g} over {over} weights")


def bytes_target(max_bytes: float, schema: Schema, *, bytes_per_weight: float, fixed_bytes: float = 0.0) -> Target:
    """What fits into `max_bytes` for one client, one direction and one round of steady state, where positions cost
    nothing. `bytes_per_weight` and `fixed_bytes` (headers, buffers) are measured, or 4.0 and 0 for lossless float32."""
    if bytes_per_weight <= 0:
        raise LocalError("a weight must weigh something", seen=bytes_per_weight, expected="bytes above 0")
    _, free = _sizes(schema)
    keep = (max_bytes - fixed_bytes) / bytes_per_weight - free
    return _target(keep, schema, f"{max_bytes:g} bytes a round and direction at {bytes_per_weight:g} bytes a weight")


def _sizes(schema: Schema) -> tuple[int, int]:
    return sum(t.size for t in schema.prunable), sum(t.size for t in schema.of(Role.FREE))


def _target(keep: float, schema: Schema, stated: str) -> Target:
    size, free = _sizes(schema)
    whole = int(keep + 1e-9)
    if not 0 < whole <= size:
        raise LocalError(
            f"no mask can meet {stated}",
            seen=f"{whole} prunable weights would be left, beside {free} that are never pruned",
            expected=f"1 to {size}",
            next_step="Choose a larger budget, or let more tensors be pruned with pruning.prune",
        )
    density, of_all = whole / size, (whole + free) / (size + free)
    says = f"{stated}: {whole} of {size} prunable weights ({density:.4g}), {of_all:.4g} of all {size + free}"
    return Target(keep=whole, density=density, density_of_all=of_all, says=says)


def cost_share(budget: float, mask: Mask, cost: Mapping[str, float], *, fixed: float = 0.0) -> float:
    """The share of the prunable layers' full cost that `budget` leaves them, when `fixed` goes to what is never
    pruned. Both are in the unit of `cost` (per weight). Raises `LocalError` when nothing is left."""
    full = sum(cost[t.name] * t.size for t in mask.schema.prunable)
    share = (budget - fixed) / full if full > 0 else -1.0
    if share <= 0:
        raise LocalError(
            "the budget is spent before a prunable weight is counted", seen=budget, expected=f"above {fixed:g}"
        )
    return min(1.0, share)


def absolute_threshold(
    magnitude: Mapping[str, Scores], mask: Mask, threshold: float, *, strict: bool = True
) -> tuple[Share, ...]:
    """Keep what is alive and |w| >= `threshold`. Scale-dependent: look at the shares before applying them.

    Where a layer would lose its last weight: raises `LocalError` with the largest threshold that would not; or, in the
    middle of a run (not `strict`), the layer's largest weight stays, and the explanation shows that it is one."""
    stated = f"the threshold {threshold:g}"
    return tuple(_above(n, magnitude[n][bits], threshold, stated, strict) for n, bits in mask.alive.items())


def mean_threshold(
    magnitude: Mapping[str, Scores], mask: Mask, factor: float = 1.0, *, strict: bool = True
) -> tuple[Share, ...]:
    """Keep, layer by layer, what is alive and at least `factor` times the mean |w| of the layer's alive weights.

    With factor 1 a Gaussian layer loses 57.5 %, a Laplace one 63.2 %, a uniform one 50 %, at once; on survivors it
    compounds. `strict` as in `absolute_threshold`."""
    alive = {name: magnitude[name][bits] for name, bits in mask.alive.items()}
    means = {name: float(line.mean(dtype=np.float64)) if line.size else 0.0 for name, line in alive.items()}
    stated = f"{factor:g} x mean |w|"
    return tuple(_above(name, line, factor * means[name], stated, strict) for name, line in alive.items())


def _above(name: str, alive: Scores, threshold: float, stated: str, strict: bool) -> Share:
    keep = int(np.count_nonzero(alive >= threshold))
    if keep == 0 and alive.size and strict:
        raise LocalError(
            f"{stated} would empty {name!r}",
            seen=f"its largest weight is {float(alive.max()):.4g}",
            expected=f"a threshold of at most that, not {threshold:.4g}",
            next_step="Lower the threshold, or protect the layer with pruning.protect",
        )
    return Share(names=(name,), keep=max(keep, min(1, alive.size)))
