"""Papers by name: what to put into `PruningPlan` to get the method of one.

A preset fixes what makes the method what it is; density, rounds and floors stay the user's. Where a published default
depends on the length of the run it is given as a share of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fedprune.errors import LocalError
from fedprune.pruning.plan import PruningPlan

PRESETS: dict[str, Mapping[str, Any]] = {
    # Zhu & Gupta 2017, nested and global as in FedMap (Herzog et al. 2024).
    "gradual": {"method": "magnitude", "schedule": "cubic", "spread": "global"},
    # Lee et al. 2019; federated as in SSFL (Ohib et al. 2025).
    "snip": {"method": "snip", "schedule": "init", "spread": "global"},
    # Tanaka et al. 2020.
    "synflow": {"method": "synflow", "schedule": "init", "spread": "global"},
    # The control: random weights under ERK, frozen (Evci et al. 2020).
    "random": {"method": "random", "schedule": "init", "spread": "erk"},
    # Lee et al. 2021, at the gradual pace.
    "lamp": {"method": "magnitude", "schedule": "cubic", "spread": "lamp"},
    # Sun et al. 2024: the same share of every row, after warm-up.
    "wanda": {"method": "wanda", "schedule": "once", "spread": "uniform"},
    # Sanh et al. 2020: for models that start pretrained.
    "movement": {"method": "movement", "schedule": "cubic", "spread": "global"},
    # Bibikar et al. 2022: clients exchange by themselves, and train what they grew before anything is averaged.
    "feddst": {"method": "magnitude", "schedule": "regrow", "spread": "erk", "regrow": "local", "exchange": 0.3},
    # Huang et al. 2023: grow by the clients' mean gradient.
    "fedtiny": {"method": "random", "schedule": "regrow", "spread": "erk", "regrow": "gradient", "exchange": 0.3},
    # FedRTS, NeurIPS 2025: Thompson sampling from Beta posteriors.
    "fedrts": {
        "method": "random",
        "schedule": "regrow",
        "spread": "erk",
        "regrow": "posterior",
        "exchange": 0.4,
        "gamma": 0.5,
        "rate": 10.0,
    },
}


def preset(name: str, **settings: Any) -> PruningPlan:
    """The plan of the paper `name`, with `settings` (density, start, ...) on top.

    Raises `LocalError` for a name that is not known, and for a setting that the preset fixes to another value."""
    if name not in PRESETS:
        raise LocalError("no such preset of pruning", seen=name, expected=" | ".join(PRESETS))
    fixed = PRESETS[name]
    known = {field.name for field in fields(PruningPlan)}
    for key, value in settings.items():
        if key not in known:
            raise LocalError(f"pruning has no setting {key!r}", expected=" | ".join(sorted(known)))
        if fixed.get(key, value) != value:
            raise LocalError(
                f"preset {name!r} and pruning.{key} contradict each other",
                seen=repr(value),
                expected=repr(fixed[key]),
                next_step="Leave the setting out, or the preset",
            )
    return PruningPlan(**{**fixed, **settings})
