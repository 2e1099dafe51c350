"""Bytes up and down, as a value that adds up. `up` is what clients send to the coordinator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from fedprune.errors import LocalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes in each direction, summed over clients."""

    up: int = 0
    down: int = 0

    def __post_init__(self) -> None:
        if min(self.up, self.down) < 0:
            raise LocalError("traffic cannot be negative", seen=self)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(up=self.up + other.up, down=self.down + other.down)

    @property
    def both(self) -> int:
        """Bytes of both directions together."""
        return self.up + self.down

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Traffic:
        """The sum of many; nothing adds up to nothing."""
        return sum(parts, Traffic())

    @classmethod
    def total_if_known(cls, parts: Iterable[Traffic | None]) -> Traffic | None:
        """The sum, or None where a single part is not known: half a measurement is none."""
        known = list(parts)
        return None if None in known else sum((p for p in known if p is not None), Traffic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times fewer bytes, for each direction and both together; None where nothing was sent."""

    up: float | None
    down: float | None
    both: float | None

    @classmethod
    def of(cls, baseline: Traffic, actual: Traffic) -> Ratio:
        """Baseline bytes for each actual byte."""
        return cls(
            up=_divide(baseline.up, actual.up),
            down=_divide(baseline.down, actual.down),
            both=_divide(baseline.both, actual.both),
        )


def _divide(baseline: int, actual: int) -> float | None:
    return baseline / actual if actual else None
