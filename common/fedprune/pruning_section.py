"""The `[pruning]` section of a run file, and which of its keys contradict each other."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedprune.pruning.presets import PRESETS
from fedprune.section import Count, CountOrZero, Patterns, Positive, Section, Share, ShareOrZero
from fedprune.tomlfile import KeyProblem

# What density = "auto" may cost where the file does not say.
AUTO_DROP = 0.01
# Scores that the coordinator computes by itself.
DATA_FREE = ("magnitude", "random", "synflow")

Stage = Annotated[tuple[ShareOrZero, Share], Field(strict=False)]
Stages = Annotated[tuple[Stage, ...], Field(strict=False)]
Levels = Annotated[tuple[Share, ...], Field(strict=False)]
Method = Literal[
    "magnitude",
    "random",
    "synflow",
    "gradient",
    "snip",
    "taylor",
    "fisher",
    "movement",
    "activation",
    "apoz",
    "wanda",
]
Preset = Literal["gradual", "snip", "synflow", "random", "lamp", "wanda", "movement", "feddst", "fedtiny", "fedrts"]
Budget = Literal["keep", "compression", "parameters", "flops", "bytes"]


class PruningSection(Section):
    preset: Preset | None = None
    """A paper's method by name: sets method, schedule, spread and regrow as it does; the other keys stay yours."""
    density: Share | Literal["auto"] = 1.0
    """Share of the prunable weights that is alive at the end; 1.0 prunes nothing; "auto" goes as low as the allowed drop
    of accuracy lets it."""
    max_accuracy_drop: ShareOrZero | None = None
    """With a value (0.01 is one point) each step is on approval: judged by all clients on what they held out, against
    the best accepted model, and undone where it costs more. With density "auto" 0.01 unless given."""
    recovery: Count = 3
    """For steps on approval: rounds of training between a step and its verdict."""
    distill: ShareOrZero = 0.0
    """For steps on approval: share of the loss during recovery that pulls clients towards the answers of the model before
    the step (Hinton et al., 2015, at temperature 2), which they hold anyway; 0 does not."""
    over: Literal["prunable", "all"] = "prunable"
    """What keep, compression and parameters of `budget` count: the prunable weights, or all of them."""
    method: Method = "magnitude"
    """How important a weight is: its size, nothing (the control), SynFlow (models whose matrices form a chain), or a
    score that the clients compute on their data, each time before a round that ends with a new mask."""
    schedule: Literal["cubic", "linear", "once", "init", "staged", "regrow"] = "cubic"
    """How density falls: gradually (Zhu and Gupta, 2017), evenly, once after `start`, before round 1, by `stages`; or
    before round 1, and from then on weights are exchanged every `every` rounds until `end`."""
    start: ShareOrZero = 0.1
    """Share of the rounds after which pruning begins."""
    end: ShareOrZero = 0.6
    """Share of the rounds after which density has reached its target."""
    every: Count = 5
    """Rounds between mask changes."""
    stages: Stages = ()
    """For schedule "staged": pairs of a share of the rounds and the density from there on."""
    spread: Literal["global", "uniform", "erk", "lamp"] = "global"
    """How the density is laid over the tensors: one ranking for all, evenly, by shape (ERK), or by LAMP scores."""
    regrow: Literal["votes", "gradient", "posterior", "local"] = "votes"
    """For schedule "regrow", what grows: what most clients vote for, the largest mean gradients (FedTiny), what draws from
    Beta posteriors choose (FedRTS), or, "local", what each client chooses for a mask of its own, which it trains for a
    round before all are averaged and pruned back to one (FedDST)."""
    exchange: Share = 0.3
    """For schedule "regrow": share of the alive weights that the first exchange replaces; it falls to 0 at `end`."""
    protect: Patterns = ()
    """Names of tensors that are never pruned, with * and ?; added to the built-in protection."""
    prune: Patterns = ()
    """Names of tensors that are pruned although the built-in protection covers them."""
    floor: CountOrZero = 16
    """Fewest weights a prunable tensor keeps."""
    floor_share: ShareOrZero = 0.005
    """Smallest share of its weights a prunable tensor keeps."""
    connect: bool = True
    """Keep a weight of every row and column that is alive. Without it whole units may go, which at densities of a few
    percent leaves more weights to those that stay."""
    reestimate: bool = True
    """After each change of the mask clients measure batch norm's statistics anew, by forward passes, before anything is
    evaluated. Models that keep none go on at once."""
    merge: Literal["scores", "union", "majority", "intersection", "quorum"] = "scores"
    """What becomes one of scores that need data: their mean, by which the coordinator ranks; or masks that the clients
    propose by their own: what any, half, all or the share `quorum` of the examples want is pruned back to the budget by size."""
    quorum: Share = 0.5
    """For merge "quorum": share of the examples that must want a weight."""
    levels: Levels = ()
    """Densities that clients may have: each holds, trains and sends as much of the model as it can carry within
    `clients.deadline_s`, or as `clients.densities` says. The masks are nested, and cut anew every `every` rounds until
    `end`; a weight is averaged over those who hold it."""
    budget: dict[Budget, Positive] = Field(default={})
    """In place of density: `keep` (a share), `compression` (one in so many stays), `parameters` (so many stay), `flops`
    (for one example, forward), or `bytes` (of a client's update in a steady round, at most)."""
    layers: dict[str, Share] = Field(default={})
    """Tensors with a density of their own: names, with * and ?, and densities."""
    threshold: dict[Literal["absolute", "mean"], Positive] = Field(default={})
    """In place of density, with "once" or "init": keep what is at least so large, or `mean` times its tensor's mean."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_paper_says(cls, keys: Any) -> Any:
        """The keys of a preset, under those of the file, which must not say otherwise."""
        name = keys.get("preset") if isinstance(keys, dict) else None
        if not isinstance(name, str) or name not in PRESETS:
            return keys
        fixed = {key: value for key, value in PRESETS[name].items() if key in cls.model_fields}
        for key, value in fixed.items():
            if keys.get(key, value) != value:
                raise KeyProblem(
                    key, f"{keys[key]!r} contradicts preset = {name!r}, which has {value!r}; leave one of them out"
                )
        return {**fixed, **keys}

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start > self.end:
            raise KeyProblem("start", f"start = {self.start} comes after end = {self.end}")
        if len(self.threshold) > 1:
            raise KeyProblem("threshold", "threshold is either absolute or mean, not both")
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if len(self.budget) > 1:
            raise KeyProblem("budget", f"one budget at a time, not {' and '.join(self.budget)}")
        if self.budget and (self.density != 1.0 or self.threshold):
            other = "threshold" if self.threshold else f"density = {self.density}"
            raise KeyProblem("budget", f"budget and {other} contradict each other; keep the one you mean")
        if "flops" in self.budget and self.allowance is not None:
            raise KeyProblem("budget", "steps on approval go by weights; state the budget as keep or parameters")
        return self

    @model_validator(mode="after")
    def _mergeable(self) -> Self:
        if self.merge == "scores":
            return self
        if self.method in DATA_FREE:
            raise KeyProblem(
                "merge", f"clients propose masks by scores of their own data, which {self.method!r} is not"
            )
        other = "schedule" if self.schedule == "regrow" else "layers" if self.layers else ""
        if other or "flops" in self.budget:
            raise KeyProblem(other or "budget", "proposed masks are counted in weights, of all or of each tensor")
        return self

    @property
    def readjusts(self) -> bool:
        """Whether clients exchange weights in masks of their own."""
        return self.schedule == "regrow" and self.regrow == "local"

    @property
    def allowance(self) -> float | None:
        """How much accuracy a step may cost; None where steps are not on approval."""
        return AUTO_DROP if self.density == "auto" and self.max_accuracy_drop is None else self.max_accuracy_drop

    @model_validator(mode="after")
    def _approvable(self) -> Self:
        if self.distill >= 1.0:
            raise KeyProblem("distill", "with all of the loss the labels would not count")
        if self.allowance is None:
            if self.distill:
                raise KeyProblem("distill", "there is a recovery only with max_accuracy_drop")
            return self
        if self.method not in DATA_FREE:
            raise KeyProblem(
                "method",
                f"{self.method!r} needs the clients' scores before every step, which steps on approval do not ask for; "
                f"choose one of {', '.join(DATA_FREE)}, or leave max_accuracy_drop out",
            )
        if self.schedule in ("init", "regrow") or self.threshold:
            key = "threshold" if self.threshold else "schedule"
            raise KeyProblem(key, "steps on approval follow cubic, linear, once or staged densities")
        if self.density == "auto" and (self.layers or self.schedule != "cubic"):
            key = "layers" if self.layers else "schedule"
            raise KeyProblem(key, 'density = "auto" finds its own densities, all layers together, at its own pace')
        return self
