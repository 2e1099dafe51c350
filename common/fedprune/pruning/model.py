"""Whether a plan and a model go together: asked once both are known, before the first round.

It also turns a plan and a density into a budget by layers, which needs the model's names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedprune.errors import LocalError
from fedprune.pruning.chain import chain_of
from fedprune.pruning.patterns import resolve
from fedprune.pruning.plan import PruningPlan, keep_count
from fedprune.pruning.selection import CostShare, Share
from fedprune.pruning.spread import shares
from fedprune.tensor import Schema


def check_model(plan: PruningPlan, schema: Schema, cost: Mapping[str, float] | None = None) -> None:
    """Raise `LocalError` where the model has nothing to prune, a pattern matches nothing, its shapes do not suit the
    method, a cost is missing, or the floors alone hold more than the density."""
    if not plan.prunes:
        return
    size = sum(t.size for t in schema.prunable)
    if size == 0:
        raise LocalError(
            "pruning is on but no tensor can be pruned",
            seen=f"pruning.density = {plan.density}",
            next_step="Set pruning.density = 1.0, or lift a protection with pruning.prune",
        )
    if plan.method == "synflow":
        chain_of(schema)
    if plan.threshold is None:
        budget(plan, plan.density, schema, cost)
    if plan.threshold is None and plan.measure == "weights":
        _check_floors(plan, schema, size)


def budget(
    plan: PruningPlan, density: float, schema: Schema, cost: Mapping[str, float] | None = None
) -> Sequence[Share] | CostShare:
    """What `density` means for this model under the plan's measure, spread and layers. `cost[name]` is the cost of one
    weight, needed with measure "cost"."""
    if plan.measure == "cost":
        if cost is None or any(t.name not in cost for t in schema.prunable):
            raise LocalError(
                "a budget of cost needs the cost of a weight of each layer",
                seen="none" if cost is None else sorted(cost),
                expected=[t.name for t in schema.prunable],
            )
        full = sum(cost[t.name] * t.size for t in schema.prunable)
        return CostShare(cost={t.name: cost[t.name] for t in schema.prunable}, budget=density * full)
    # A layer with a density of its own goes there at the pace of the whole, so that every step on the way adds up.
    progress = min(1.0, (1.0 - density) / (1.0 - plan.density)) if plan.density < 1.0 else 1.0
    final = resolve(dict(plan.layers), [t.name for t in schema.prunable], key="pruning.layers")
    own = {name: 1.0 - (1.0 - value) * progress for name, value in final.items()}
    return shares(plan.spread, keep_count(density, sum(t.size for t in schema.prunable)), schema, own)


def _check_floors(plan: PruningPlan, schema: Schema, size: int) -> None:
    least = plan.floors.least(schema)
    if keep_count(plan.density, size) < least:
        raise LocalError(
            "the floors hold more weights than the density allows",
            seen=f"pruning.density = {plan.density}: {keep_count(plan.density, size)} of {size} weights",
            expected=f"at least {least}: one for each row and column, and the floor of each layer",
            next_step=f"Set pruning.density to {_up(least / size)} or more, or lower pruning.floor",
        )


def dear_floors(plan: PruningPlan, schema: Schema) -> str:
    """A sentence where keeping units alive takes more than half of what the density leaves: the scores decide little
    then. Empty elsewhere."""
    keep = keep_count(plan.density, sum(t.size for t in schema.prunable))
    held = plan.floors.least(schema)
    if not plan.prunes or not plan.floors.connect or plan.measure != "weights" or plan.threshold or 2 * held <= keep:
        return ""
    return (
        f"{held} of the {keep} weights that stay only keep a row or a column alive; "
        "with pruning.connect = false whole units may go, and more weights stay where they count"
    )


def _up(share: float) -> float:
    return min(1.0, int(share * 10_000 + 1) / 10_000)
