"""How updates become the next model: pure numpy, exact, and independent of the order of arrival."""

from fedprune_server.aggregation.aggregators import Composed
from fedprune_server.aggregation.fixed import MAX_EXAMPLES, MAX_UPDATES, Deltas, Partial, Scale
from fedprune_server.aggregation.inputs import Aggregator, Folded, FoldInput
from fedprune_server.aggregation.mean import Mean, Plain

__all__ = [
    "MAX_EXAMPLES",
    "MAX_UPDATES",
    "Aggregator",
    "Composed",
    "Deltas",
    "FoldInput",
    "Folded",
    "Mean",
    "Partial",
    "Plain",
    "Scale",
    "fedavg",
]


def fedavg(*, rate: float = 1.0) -> Aggregator:
    """Federated averaging, going `rate` of the way."""
    return Composed(rule=Mean(), optimizer=Plain(rate=rate))
