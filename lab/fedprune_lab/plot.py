"""One picture of a comparison, as SVG by hand: accuracy over the bytes that moved, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from xml.sax.saxutils import escape

from fedprune_lab.outcomes import Outcome

WIDTH, HEIGHT, LEFT, TOP = 560, 320, 60, 20
COLOURS = ("#444444", "#0b6e99", "#b5651d", "#4b7f52", "#8a4f7d", "#b23a48", "#5b6c9d", "#8c8c3a")
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 380" font-family="sans-serif" font-size="12">
<rect x="60" y="20" width="560" height="320" fill="none" stroke="#bbbbbb"/>
<text x="60" y="360">{least}</text>
<text x="620" y="360" text-anchor="end">{most}, up and down, all clients</text>
<text x="54" y="340" text-anchor="end">{low:.1%}</text>
<text x="54" y="30" text-anchor="end">{high:.1%}</text>
{points}
</svg>
"""
POINT = """<line x1="{x:.1f}" x2="{x:.1f}" y1="{above:.1f}" y2="{below:.1f}" stroke="{colour}"/>
<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>
<circle cx="636" cy="{line}" r="5" fill="{colour}"/>
<text x="646" y="{text_line}">{name}</text>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From `low` to `high`, with some air at both ends."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float], air: float) -> Axis:
        """An axis that shows all values."""
        return cls(low=min(values, default=0.0) - air, high=max(values, default=1.0) + air)

    def share(self, value: float) -> float:
        """Where a value stands: 0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


def picture(rows: Sequence[Outcome]) -> str:
    """An SVG with a point for each strategy that has an accuracy; its bar is a standard deviation over seeds."""
    shown = [(row, row.accuracy, log10(max(1.0, row.bytes_up + row.bytes_down))) for row in rows if row.accuracy]
    heights = Axis.around([accuracy for _, accuracy, _ in shown], 0.03)
    moved = Axis.around([power for _, _, power in shown], 0.1)
    points = []
    for number, (row, accuracy, power) in enumerate(shown):
        y = TOP + (1 - heights.share(accuracy)) * HEIGHT
        half = (row.spread or 0.0) / (heights.high - heights.low) * HEIGHT
        points.append(
            POINT.format(
                x=LEFT + moved.share(power) * WIDTH,
                y=y,
                above=y - half,
                below=y + half,
                colour=COLOURS[number % len(COLOURS)],
                line=30 + 18 * number,
                text_line=34 + 18 * number,
                name=escape(row.strategy),
            )
        )
    return FRAME.format(
        least=f"{10**moved.low:,.0f} B",
        most=f"{10**moved.high:,.0f} B",
        low=heights.low,
        high=heights.high,
        points="\n".join(points),
    )
