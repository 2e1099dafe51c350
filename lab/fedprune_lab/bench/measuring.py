"""How the codec bench measures: CPU seconds of one thread, beside a memcpy of the same minute.

The machine may be busy: CPU time leaves waiting out, and the ratio to memcpy cancels part of what neighbours do to the
caches. Bytes are exact whatever the machine does.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

MEMCPY_BYTES = 64 << 20
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One coding of one thing. Rates are GB/s of the dense float32 tensors; `over_bound` is bytes over the entropy
    (of places: n H(p); of symbols: order 0), None where there is no such bound."""

    net: str
    what: str
    density: float
    coding: str
    size: int
    times_smaller: float
    over_bound: float | None = None
    encode_gb_s: float | None = None
    decode_gb_s: float | None = None
    encode_memcpy: float | None = None
    decode_memcpy: float | None = None
    error: float | None = None


class Stopwatch:
    """Times calls; `memcpy_gb_s` is measured anew beside every call, since neighbours come and go."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self._source = np.ones(MEMCPY_BYTES // 4, np.float32)
        self._target = np.ones_like(self._source)

    def memcpy_gb_s(self) -> float:
        """GB/s of copying 64 MiB, median."""
        _, seconds = self._time(lambda: np.copyto(self._target, self._source))
        return MEMCPY_BYTES / seconds / 1e9

    def rate(self, call: Callable[[], Result], dense_bytes: int) -> tuple[Result, float, float]:
        """What `call` gives, GB/s of `dense_bytes`, and that over memcpy."""
        result, seconds = self._time(call)
        rate = dense_bytes / seconds / 1e9
        return result, rate, rate / self.memcpy_gb_s()

    def _time(self, call: Callable[[], Result]) -> tuple[Result, float]:
        spent = []
        for _ in range(self.repeats):
            start = time.process_time()
            result = call()
            spent.append(time.process_time() - start)
        return result, median(spent)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """All rows, one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in asdict(row).items()} for row in rows)


def _short(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def table(rows: Iterable[Row]) -> Iterable[str]:
    """The rows as lines for a terminal."""
    yield (
        f"{'net':<12}{'what':<17}{'density':>8}  {'coding':<10}{'bytes':>10}{'x':>9}{'/bound':>8}"
        f"{'in GB/s':>9}{'out GB/s':>9}{'in/mc':>7}{'out/mc':>7}{'error':>9}"
    )
    for row in rows:
        yield (
            f"{row.net:<12}{row.what:<17}{row.density:>8g}  {row.coding:<10}{row.size:>10}{row.times_smaller:>9.2f}"
            f"{_cell(row.over_bound, 3):>8}{_cell(row.encode_gb_s, 2):>9}{_cell(row.decode_gb_s, 2):>9}"
            f"{_cell(row.encode_memcpy, 2):>7}{_cell(row.decode_memcpy, 2):>7}{_cell(row.error, 5):>9}"
        )


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
