"""What a line between two machines does to bytes: so many a second get through, and each arrives later. Pure.

The relay stands on it. Only bytes are shaped: TCP ends at the relay, so slow start and lost packets are not part of
the picture, and a measurement that needs them is made between hosts (bench/hosts.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from fedprune.errors import ConfigError

# How much may wait in front of a line before its sender is held up, and how finely bytes are cut, both in seconds.
BACKLOG_S = 0.05
SLICE_S = 0.005
SMALLEST_SLICE, LARGEST_SLICE = 1448, 1 << 16
UNLIMITED_SLICES = 256

BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One line, alike in both directions. `rate_bit_per_s` 0 is no limit; `delay_s` is one way, half a round trip, and
    `jitter_s` the most that is added to it or taken from it. Every `reset_every_s` on average all connections are
    reset; every `cut_every_s` nothing gets through for `cut_s`, silently. 0 never."""

    rate_bit_per_s: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    reset_every_s: float = 0.0
    cut_every_s: float = 0.0
    cut_s: float = 2.0

    def __post_init__(self) -> None:
        if min(self.rate_bit_per_s, self.delay_s, self.jitter_s, self.reset_every_s, self.cut_every_s, self.cut_s) < 0:
            raise ConfigError("a link cannot have less than nothing of anything", seen=self)
        if self.jitter_s > self.delay_s:
            raise ConfigError("bytes would arrive before they are sent", seen=self, expected="jitter up to the delay")

    @property
    def slice_bytes(self) -> int:
        """Most bytes that are handed on at once: what the line carries in 5 ms."""
        if not self.rate_bit_per_s:
            return LARGEST_SLICE
        return min(max(int(self.rate_bit_per_s / 8 * SLICE_S), SMALLEST_SLICE), LARGEST_SLICE)

    @property
    def slices_under_way(self) -> int:
        """Most slices between the two ends; 1 where nothing is delayed."""
        if not self.rate_bit_per_s:
            return UNLIMITED_SLICES if self.delay_s else 1
        return 1 + ceil((self.delay_s + self.jitter_s + BACKLOG_S) * self.rate_bit_per_s / 8 / self.slice_bytes)


class Line:
    """One direction of one connection. `draw` gives the jitter's share, from -1 to 1."""

    def __init__(self, link: Link, draw: Callable[[], float] = lambda: 0.0) -> None:
        self._link = link
        self._draw = draw
        self._free_s = self._arrived_s = float("-inf")

    def arrival_s(self, now_s: float, count: int) -> float:
        """When `count` bytes that come to the line now have arrived, behind all that came before."""
        link = self._link
        self._free_s = max(now_s, self._free_s) + (8 * count / link.rate_bit_per_s if link.rate_bit_per_s else 0.0)
        late_s = link.delay_s + (link.jitter_s * self._draw() if link.jitter_s else 0.0)
        self._arrived_s = max(self._arrived_s, self._free_s + late_s)
        return self._arrived_s

    def wait_s(self, now_s: float) -> float:
        """How long the sender has to wait before it may send more."""
        return max(0.0, self._free_s - now_s - BACKLOG_S)


def bit_per_s(text: str) -> float:
    """ "10mbit" as bits a second. Raises `ConfigError`."""
    return _quantity(text, BITS, "a rate such as 10mbit")


def seconds(text: str) -> float:
    """ "40ms" as seconds. Raises `ConfigError`."""
    return _quantity(text, SECONDS, "a time such as 40ms")


def rate_text(bit_per_s: float) -> str:
    """As `bit_per_s` reads it: "10mbit"."""
    unit = max((u for u, scale in BITS.items() if scale <= bit_per_s), key=BITS.__getitem__, default="bit")
    return f"{bit_per_s / BITS[unit]:g}{unit}"


def _quantity(text: str, units: dict[str, float], expected: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", text.strip().lower())
    if found is None or found[2] not in units:
        raise ConfigError("cannot read a quantity", seen=text, expected=expected)
    return float(found[1]) * units[found[2]]
