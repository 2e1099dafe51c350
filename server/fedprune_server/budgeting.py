"""What a run file asks of the model's size, in whatever terms, as a density; and in words what that comes to."""

from __future__ import annotations

from dataclasses import dataclass

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.flops import OPERATIONS, Cost
from fedprune.mask import Mask
from fedprune.pruning import Floors
from fedprune.pruning.budgets import Target, bytes_target, cost_share, target
from fedprune.tensor import Role, Schema
from fedprune_server.control_plan import least_density

# What a value weighs at most on the wire; lossless ones weigh less, but nobody knows before.
BYTES = {"lossless": 4.0, "raw": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5, "ternary": 0.25}
# Framing and control of one round and direction, and the scales of quantised blocks.
FIXED_BYTES = 1000.0
SCALES = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgeted:
    """The density to end with, in `measure` ("weights" or "cost"), and the budget in words, empty where the file speaks
    of density itself."""

    density: float
    measure: str = "weights"
    says: str = ""


def budgeted(config: RunConfig, schema: Schema, cost: Cost | None) -> Budgeted:
    """The density that the run file means for this model; `cost` is needed where it speaks of flops. Raises
    `LocalError` where no mask can meet the budget."""
    pruning = config.pruning
    if pruning.density == "auto":
        floors = Floors(weights=pruning.floor, share=pruning.floor_share, connect=pruning.connect)
        return Budgeted(density=least_density(floors, schema))
    if not pruning.budget:
        return Budgeted(density=pruning.density)
    kind, value = next(iter(pruning.budget.items()))
    if kind == "flops":
        return _of_flops(value, schema, cost)
    found = _of_bytes(value, config, schema) if kind == "bytes" else target(kind, value, schema, over=pruning.over)
    return Budgeted(density=found.density, says=found.says)


def _of_flops(budget: float, schema: Schema, cost: Cost | None) -> Budgeted:
    if cost is None:
        raise ConfigError(
            "pruning.budget speaks of flops, and there is no example to count them on",
            expected="`test_data()` in the task file, on the coordinator",
            next_step="Add it, or state the budget as parameters",
        )
    full = Mask.full(schema)
    fixed = OPERATIONS * cost.fixed
    share = cost_share(budget / OPERATIONS, full, cost.per_weight, fixed=cost.fixed)
    says = f"{budget:g} flops for an example: {share:.4g} of those that pruning can save, {fixed:g} are fixed"
    return Budgeted(density=share, measure="cost", says=f"{says}; the dense model needs {cost.flops(full):g}")


def _of_bytes(budget: float, config: RunConfig, schema: Schema) -> Target:
    values = config.compression.up
    buffers = sum(t.size * 4 for t in schema.of(Role.BUFFER))
    each = BYTES[values] * (1.0 if values in ("lossless", "raw", "fp16", "bf16") else SCALES)
    return bytes_target(budget, schema, bytes_per_weight=each, fixed_bytes=FIXED_BYTES + buffers)
