"""Every rule that a run file can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedprune.errors import LocalError
from fedprune_server.aggregation.aggregators import Composed, Optimizer, Rule
from fedprune_server.aggregation.coordinatewise import TrimmedMean
from fedprune_server.aggregation.fixed import Floats
from fedprune_server.aggregation.inputs import Aggregator
from fedprune_server.aggregation.mean import Mean
from fedprune_server.aggregation.optimizers import Adaptive, Momentum, Plain, adagrad, adam, yogi
from fedprune_server.aggregation.vectors import MultiKrum, NormClip


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the rules can be told; each takes what concerns it.

    `rate` is the step along the mean update (fedadam, fedyogi and fedadagrad want about 0.1), `momentum` the decay of
    the first moment and `second` of the second, `floor` keeps adaptive steps small where nothing moves. `trim` is the
    share cut at either end of trimmed_mean, `attackers` what multi_krum stands, and trimmed_mean and median with
    `mixing`. With `clip_norm` above 0 longer updates are shortened to it first, whatever the rule. `damping` is for
    means over clients with masks of their own.
    """

    rate: float = 1.0
    momentum: float = 0.9
    second: float = 0.99
    floor: float = 1e-3
    trim: float = 0.2
    attackers: float = 0.2
    mixing: bool = False
    clip_norm: float = 0.0
    damping: float = 0.0


Maker = Callable[[Options], tuple[Rule, Optimizer]]


def _adaptive(moment: Callable[[Floats, Floats, float], Floats]) -> Maker:
    def make(o: Options) -> tuple[Rule, Optimizer]:
        return Mean(o.damping), Adaptive(
            moment=moment, rate=o.rate, beta=o.momentum, beta_second=o.second, floor=o.floor
        )

    return make


RULES: dict[str, Maker] = {
    "fedavg": lambda o: (Mean(o.damping), Plain(rate=o.rate)),
    "fedavgm": lambda o: (Mean(o.damping), Momentum(rate=o.rate, beta=o.momentum)),
    "fedadam": _adaptive(adam),
    "fedyogi": _adaptive(yogi),
    "fedadagrad": _adaptive(adagrad),
    "trimmed_mean": lambda o: (TrimmedMean(trim=o.trim, attackers=o.attackers * o.mixing), Plain(rate=o.rate)),
    "median": lambda o: (TrimmedMean(trim=0.5, attackers=o.attackers * o.mixing), Plain(rate=o.rate)),
    "multi_krum": lambda o: (MultiKrum(inner=Mean(o.damping), attackers=o.attackers), Plain(rate=o.rate)),
    "norm_clip": lambda o: (NormClip(inner=Mean(o.damping)), Plain(rate=o.rate)),
}


def aggregator(name: str, options: Options | None = None) -> Aggregator:
    """The aggregator of a rule by its name. Raises `LocalError` for an unknown name or an option out of range."""
    if name not in RULES:
        raise LocalError("no such aggregation rule", seen=name, expected=" | ".join(RULES))
    options = options or Options()
    rule, optimizer = RULES[name](options)
    if options.clip_norm:
        rule = NormClip(inner=rule, norm=options.clip_norm)
    return Composed(rule=rule, optimizer=optimizer)
