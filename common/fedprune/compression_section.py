"""The `[compression]` section of a run file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedprune.section import Patterns, PositiveOrZero, Section, Share, ShareOrZero, Values
from fedprune.tomlfile import KeyProblem

Stage = Annotated[tuple[ShareOrZero, Values, Share], Field(strict=False)]
Stages = Annotated[tuple[Stage, ...], Field(strict=False)]


class CompressionSection(Section):
    plan: Literal["fixed", "auto"] = "fixed"
    """As `up`, `down` and `top` say, or chosen from round to round by the clients' links and the accuracy."""
    up: Values = "lossless"
    """How clients send their values; `raw` spends no time on coding, for networks that are faster than it."""
    down: Values = "lossless"
    """How the coordinator sends its values."""
    top: Share = 1.0
    """Of each matrix as many weights travel as are this share of the whole of it, pruned or not: the alive ones with
    the largest changes. With a lossy `down`, both ways."""
    warmup: ShareOrZero = 0.0
    """Share of the rounds during which `top` falls from 1 to its value."""
    stages: Stages = ()
    """Other values and another `top`, both ways, from a share of the rounds on: triples such as [0.3, "ternary", 0.04].
    Before the first of them the run goes as `up`, `down` and `top` say."""
    error_feedback: bool = True
    """Keep what compression leaves out and add it to the next update."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of what is sent, cleared where it was sent (Lin et al., 2018); 0 is off."""
    clip_norm: PositiveOrZero = 0.0
    """Largest L2 norm of a client's change before compression; 0 does not clip."""
    exact: Patterns = ()
    """Names of tensors that always travel lossless, with * and ?."""
    coarsest: Values = "ternary"
    """With plan "auto": the coarsest values it may choose."""
    least_top: Share = 0.01
    """With plan "auto": the smallest share it may choose."""
    tolerance: ShareOrZero = 0.02
    """With plan "auto": how far accuracy may fall behind its best before finer values are chosen."""

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.plan == "auto" and (self.up, self.down, self.top) != ("lossless", "lossless", 1.0):
            raise ValueError('plan = "auto" chooses up, down and top; bound it by coarsest and least_top')
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        shares = [share for share, _, _ in self.stages]
        if shares != sorted(set(shares)):
            raise KeyProblem("stages", f"each stage begins after the one before it, and these begin at {shares}")
        if self.stages and self.plan == "auto":
            raise KeyProblem("stages", 'plan = "auto" chooses each round\'s values itself; keep the one you mean')
        if self.stages and self.warmup:
            raise KeyProblem("stages", "warmup and stages both say how top falls; keep the one you mean")
        return self
