"""What benches that compare methods seed by seed share: results kept line by line, and paired differences.

Such benches take hours, so they are done in pieces: each finished run is a line of a file, and what is there is not
run again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom; beyond that the last one, which is too wide.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a method loses against another: the mean over seeds, and half its 95 % interval (None for one seed)."""

    mean: float
    half_width: float | None
    seeds: int


def seeds(text: str) -> list[int]:
    """The seeds that "1-10" or "3,5" names."""
    spans = [part.partition("-") for part in text.split(",")]
    return [seed for first, _, last in spans for seed in range(int(first), int(last or first) + 1)]


def rows(path: Path) -> list[Row]:
    """The results kept so far, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, row: Row) -> None:
    """Add one result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def lost(values: Mapping[int, float], against: Mapping[int, float]) -> Lost | None:
    """By seed what is lost against another; None where they share no seed."""
    differences = [against[seed] - values[seed] for seed in values if seed in against]
    if not differences:
        return None
    return Lost(mean=mean(differences), half_width=_half_width(differences), seeds=len(differences))


def _half_width(differences: Sequence[float]) -> float | None:
    count = len(differences)
    if count < 2:
        return None
    return T_95[min(count - 1, len(T_95)) - 1] * stdev(differences) / math.sqrt(count)
