"""Numbers as people read them: the same wording in the live table, the lines of a log and the report. Pure."""

from __future__ import annotations

from fedprune.traffic import Ratio

UNITS = (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000))
UNKNOWN = "-"


def size(count: int | None) -> str:
    """Bytes with three or four significant digits, in powers of 1000: "812 B", "20.3 kB", "1.23 MB"."""
    if count is None:
        return UNKNOWN
    for unit, scale in UNITS:
        # 999.95 kB would round to 1000.0 kB.
        if count >= scale * 0.99995:
            value = count / scale
            return f"{value:.{2 if value < 10 else 1 if value < 1000 else 0}f} {unit}"
    return f"{count} B"


def count(value: float | None) -> str:
    """How many of something, in whole numbers: "12,345"."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def percent(share: float | None, *, digits: int = 1) -> str:
    """A share as a percentage: "97.2 %"."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"


def points(gap: float | None) -> str:
    """A difference of two shares in percentage points, signed: "+0.31", "-1.20"; next to nothing is "+0.00"."""
    return UNKNOWN if gap is None else f"{round(100 * gap, 2) + 0.0:+.2f}"


def times(ratio: float | None) -> str:
    """How many times fewer: "9.6x"."""
    return UNKNOWN if ratio is None else f"{ratio:.{2 if ratio < 10 else 1}f}x"


def seconds(value: float) -> str:
    """A duration: "43 ms", "1.2 s", "2 min 5 s"."""
    if value < 0.9995:
        return f"{1000 * value:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def ratio_up_down(ratio: Ratio | None) -> str:
    """Both ratios: "9.6x up, 9.5x down"."""
    return UNKNOWN if ratio is None else f"{times(ratio.up)} up, {times(ratio.down)} down"
