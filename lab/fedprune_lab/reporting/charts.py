"""Plots over rounds as inline SVG: no script, no font, no other file. Colours are classes of the page's style sheet.

Pure. Values that were not measured are gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 34
COLOURS = 5
# Nothing that a report shows differs by less.
SMALLEST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A named line through (x, y); `soft` is one to compare with."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int = 0
    soft: bool = False


Wording = Callable[[float], str]


def line_chart(
    title: str, lines: Sequence[Line], *, x_name: str, x_wording: Wording, y_wording: Wording, log: bool = False
) -> str:
    """A figure with a legend; empty where no line has a point. With `log` only values above 0 are shown."""
    shown = [(line, _usable(line.points, log)) for line in lines]
    points = [point for _, found in shown for point in found]
    if not points:
        return ""
    x = _Axis.over([p[0] for p in points], LEFT, WIDTH - RIGHT, log=False)
    y = _Axis.over([p[1] for p in points], HEIGHT - BOTTOM, TOP, log=log)
    marks = [*_grid(x, y, x_wording, y_wording), _x_name(x_name)]
    marks += [_path(line, [(x.at(a), y.at(b)) for a, b in found]) for line, found in shown if found]
    keys = "".join(
        f'<li class="c{line.colour % COLOURS}{" soft" if line.soft else ""}"><i></i>{escape(line.name)}</li>'
        for line, found in shown
        if found
    )
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(marks)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}<ul>{keys}</ul></figure>"


def heat_map(title: str, rows: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """Densities [0, 1], a strip for each layer and a cell for each round; equal neighbours become one cell."""
    strips = []
    for name, shares in rows:
        cells = "".join(
            f'<rect x="{start}" width="{length}" height="1" fill-opacity="{0.06 + 0.94 * math.sqrt(share):.3f}"/>'
            for start, length, share in _stretches(shares)
            if share is not None and share > 0
        )
        last = next((share for share in reversed(shares) if share is not None), None)
        figure = "" if last is None else f"{100 * last:.1f} %"
        picture = f'<svg viewBox="0 0 {max(len(shares), 1)} 1" preserveAspectRatio="none">{cells}</svg>'
        strips.append(f"<dt>{escape(name)}</dt><dd>{picture}<b>{figure}</b></dd>")
    return f"<figure><figcaption>{escape(title)}</figcaption><dl class='heat'>{''.join(strips)}</dl></figure>"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Values to pixels; `ticks` are round values inside."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool) -> _Axis:
        low, high = min(values), max(values)
        if log:
            first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
            last = max(last, first + 1)
            ticks = tuple(10.0**power for power in range(first, last + 1))
            return cls(low=ticks[0], high=ticks[-1], start=start, end=end, log=True, ticks=ticks)
        ticks = round_values(low, high)
        return cls(low=min(low, ticks[0]), high=max(high, ticks[-1]), start=start, end=end, log=False, ticks=ticks)

    def at(self, value: float) -> float:
        low, high, here = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (here - low) / ((high - low) or 1.0) * (self.end - self.start)


def round_values(low: float, high: float, *, most: int = 6) -> tuple[float, ...]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten that span [low, high]."""
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, SMALLEST):
        room = size / 2 if size > SMALLEST else 0.5
        low, high = low - room, high + room
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        step * k for k in (1, 2, 5, 10, 20) if math.ceil(high / (step * k)) - math.floor(low / (step * k)) < most
    )
    return tuple(round(n * step, 12) for n in range(math.floor(low / step), math.ceil(high / step) + 1))


def _usable(points: Sequence[tuple[float, float | None]], log: bool) -> list[tuple[float, float]]:
    return [(a, b) for a, b in points if b is not None and math.isfinite(b) and (b > 0 or not log)]


def _grid(x: _Axis, y: _Axis, x_wording: Wording, y_wording: Wording) -> list[str]:
    marks = []
    for value in y.ticks:
        h = f"{y.at(value):.1f}"
        marks.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{h}" y2="{h}"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{h}" dy="4" text-anchor="end">{escape(y_wording(value))}</text>')
    for value in x.ticks:
        if x.low <= value <= x.high:
            place = f'x="{x.at(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
            marks.append(f'<text {place} text-anchor="middle">{escape(x_wording(value))}</text>')
    return marks


def _x_name(name: str) -> str:
    return f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(name)}</text>'


def _path(line: Line, points: Sequence[tuple[float, float]]) -> str:
    kind = f"c{line.colour % COLOURS}{' soft' if line.soft else ''}"
    if len(points) == 1:
        return f'<circle class="{kind}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
    route = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    return f'<path class="{kind}" d="M{route}"/>'


def _stretches(shares: Sequence[float | None]) -> list[tuple[int, int, float | None]]:
    """(start, length, value) of runs of equal values."""
    found: list[tuple[int, int, float | None]] = []
    for index, share in enumerate(shares):
        if found and found[-1][2] == share:
            start, length, _ = found[-1]
            found[-1] = (start, length + 1, share)
        else:
            found.append((index, 1, share))
    return found
