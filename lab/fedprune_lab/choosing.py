"""The choice that a cross-validated comparison makes: by what clients held out, fold by fold, and how sure it is.

Two strategies are compared on the same folds, so that what makes one fold hard is in both and cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from fedprune.pruning.comparison import Measured, paired_drop
from fedprune_lab.strategies import Key

Accuracies = Mapping[Key, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The best strategy in the mean over folds, and the one after it: by how much (shares of 1) and with which 95 %
    interval. `runner_up` is empty where there was nothing to choose from."""

    strategy: str
    accuracy: float
    folds: int
    runner_up: str = ""
    ahead: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __str__(self) -> str:
        chosen = f"chosen over {self.folds} folds: {self.strategy}, {self.accuracy:.2%} on held-out data"
        if not self.runner_up:
            return chosen
        sure = "" if self.low > 0 else "; the folds do not tell them apart"
        interval = f"95 % interval {100 * self.low:.2f} to {100 * self.high:.2f}"
        return f"{chosen}, {100 * self.ahead:.2f} points ahead of {self.runner_up} ({interval}){sure}"


def choose(found: Mapping[str, Accuracies]) -> Choice | None:
    """The choice among strategies, each with its accuracy by seed and fold; None where none has any. Of equals the first."""
    known = {name: values for name, values in found.items() if values}
    if not known:
        return None
    order: Sequence[str] = sorted(known, key=lambda name: -mean(known[name].values()))
    best = order[0]
    made = Choice(strategy=best, accuracy=mean(known[best].values()), folds=len(known[best]))
    if len(order) == 1:
        return made
    drop = paired_drop(_units(known[best]), _units(known[order[1]]))
    return Choice(
        strategy=best,
        accuracy=made.accuracy,
        folds=made.folds,
        runner_up=order[1],
        ahead=drop.mean,
        low=drop.low,
        high=drop.high,
    )


def _units(values: Accuracies) -> dict[str, Measured]:
    return {str(key): Measured(value=value) for key, value in values.items()}
