"""Pruning as pure numpy: how important a weight is, how many survive, where, and when.

Nothing here knows torch, a clock or a network; what varies with time or chance is an argument.
"""

from fedprune.pruning.floors import Floors
from fedprune.pruning.model import budget, check_model
from fedprune.pruning.plan import PruningPlan, keep_count
from fedprune.pruning.schedules import Step, cubic, density_at, steps
from fedprune.pruning.scores import magnitudes
from fedprune.pruning.selection import CostShare, LayerDecision, Selection, Share, magnitude_mask, select

__all__ = [
    "CostShare",
    "Floors",
    "LayerDecision",
    "PruningPlan",
    "Selection",
    "Share",
    "Step",
    "budget",
    "check_model",
    "cubic",
    "density_at",
    "keep_count",
    "magnitude_mask",
    "magnitudes",
    "select",
    "steps",
]
