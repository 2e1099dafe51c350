"""Which runs a comparison makes: the strategies that were asked for, and the controls that keep them honest. Pure.

A strategy that does not beat a random mask with as many weights has not found the right ones, and one that does not
beat a narrower dense network with as many weights has not shown that pruning pays. So both are always run beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.pruning_section import PruningSection
from fedprune.tomlfile import parse_override

DENSE, RANDOM, NARROW = "dense", "random mask", "narrower dense"
Load = Callable[[Sequence[str]], RunConfig]
# One run of a strategy: its seed, and the fold of the data that is held out, where there are folds.
Key = tuple[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A row of the comparison: its run file for each seed and fold."""

    name: str
    configs: Mapping[Key, RunConfig]


def parse_vary(vary: str) -> tuple[str, ...]:
    """ "pruning.method=snip,magnitude" as overrides, one for each value; brackets keep their commas."""
    key, equals, values = vary.partition("=")
    found = tuple(f"{key}={value}" for value in _split(values) if value)
    if not equals or not found:
        raise ConfigError(
            f"--vary {vary} cannot be read",
            expected="section.key=value,value,...",
            next_step="Example: --vary pruning.method=magnitude,snip",
        )
    for override in found:
        parse_override(override)
    return found


def _split(values: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def strategies(load: Load, varied: Sequence[str], seeds: Sequence[int], folds: int = 0) -> tuple[Strategy, ...]:
    """The dense baseline and every combination of the varied values; `load` reads the run file with overrides. With `folds`
    each is run with every fold of the data held out in turn."""
    keys = [(seed, fold) for seed in seeds for fold in (range(folds) if folds else (None,))]
    combinations = list(product(*(parse_vary(vary) for vary in varied)))
    named = {_name(overrides): overrides for overrides in combinations}
    asked = tuple(_strategy(load, name, overrides, keys, folds) for name, overrides in named.items())
    return _dense(asked[0]), *asked


def random_control(like: Strategy, density: float) -> Strategy:
    """Random weights under ERK, frozen before round 1, as many as `density` of the prunable ones."""

    def control(pruning: PruningSection) -> PruningSection:
        kept = {key: getattr(pruning, key) for key in ("protect", "prune", "floor", "floor_share")}
        return PruningSection(density=density, method="random", schedule="init", spread="erk", **kept)

    return _changed(like, f"{RANDOM} {density:.3g}", control)


def narrow_control(like: Strategy, weights: int) -> Strategy:
    """Nothing pruned, for a model that has only so many weights; the task makes it."""
    return _changed(like, f"{NARROW} {weights}", lambda pruning: PruningSection(protect=pruning.protect))


def _dense(like: Strategy) -> Strategy:
    return _changed(like, DENSE, lambda pruning: PruningSection(protect=pruning.protect, prune=pruning.prune))


def _strategy(load: Load, name: str, overrides: Sequence[str], keys: Sequence[Key], folds: int) -> Strategy:
    def config(key: Key) -> RunConfig:
        seed, fold = key
        held = [] if fold is None else [f"training.held_out={1 / folds}", f"training.fold={fold}"]
        return load([*overrides, f"run.seed={seed}", f"run.name={slug(name, key)}", *held])

    return Strategy(name=name, configs={key: config(key) for key in keys})


def _changed(like: Strategy, name: str, change: Callable[[PruningSection], PruningSection]) -> Strategy:
    configs = {}
    for key, config in like.configs.items():
        run = config.run.model_copy(update={"name": slug(name, key)})
        configs[key] = config.model_copy(update={"run": run, "pruning": change(config.pruning)})
    return Strategy(name=name, configs=configs)


def _name(overrides: Sequence[str]) -> str:
    return " ".join(override.partition(".")[2].replace("=", " ") for override in overrides) or "as it is"


def is_control(name: str) -> bool:
    """Whether a row of the comparison is there to be beaten."""
    return name == DENSE or name.startswith((RANDOM, NARROW))


def slug(name: str, key: Key) -> str:
    """The folder of one run of a strategy."""
    seed, fold = key
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-.')[:50]}-s{seed}{'' if fold is None else f'f{fold}'}"
