"""How updates become the next model: pure numpy, exact, and independent of the order of arrival."""

from fedprune_server.aggregation.catalogue import RULES, Options, aggregator
from fedprune_server.aggregation.fixed import MAX_EXAMPLES, MAX_UPDATES, Deltas, Partial, Scale
from fedprune_server.aggregation.inputs import Aggregator, Folded, FoldInput

__all__ = [
    "MAX_EXAMPLES",
    "MAX_UPDATES",
    "RULES",
    "Aggregator",
    "Deltas",
    "FoldInput",
    "Folded",
    "Options",
    "Partial",
    "Scale",
    "aggregator",
    "fedavg",
]


def fedavg(*, rate: float = 1.0) -> Aggregator:
    """Federated averaging, going `rate` of the way."""
    return aggregator("fedavg", Options(rate=rate))
