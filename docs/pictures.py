"""Write the drawings under images/: a round, one matrix in each of its forms, and who gets what in the demo.

Drawn by code, so that the numbers in them are computed and a line can be moved. `tests/docs/test_pages.py` makes them again and
compares.

Example: python docs/pictures.py
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune_lab import digits, shares

IMAGES = Path(__file__).resolve().parent / "images"

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#223}.s{font-size:11.5px;fill:#556}.h{font-weight:600}"
    ".m{font-family:ui-monospace,monospace;font-size:12px}.b{fill:#f4f6f9;stroke:#8894a6}.k{fill:#0072b2}"
    ".w{fill:#fff;stroke:#c3cad5}.a{stroke:#0072b2;stroke-width:2;fill:none}.d{stroke:#b0b8c4;stroke-dasharray:3 4}"
    "@media(prefers-color-scheme:dark){text{fill:#dde}.s{fill:#aab}.b{fill:#262b35;stroke:#66708a}"
    ".w{fill:#1b1f27;stroke:#4a5266}}"
)
HEAD = '<marker id="p" markerUnits="userSpaceOnUse" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"><path class="k" d="M0 0L8 4L0 8z"/></marker>'

# Rows of a small weight matrix, pruned to 8 of 32: what is drawn and counted below.
MATRIX: NDArray[np.int64] = np.zeros((4, 8), np.int64)
MATRIX[[0, 0, 1, 1, 2, 2, 3, 3], [1, 5, 0, 6, 3, 4, 2, 7]] = [7, -2, 4, 9, -5, 3, 8, -1]

STEPS = (
    ("assign", "which version to start from, how many epochs", "down"),
    ("pull", "only what this client lacks: a new mask, or values", "down"),
    ("train", "on its own data; pruned weights stay zero", "client"),
    ("submit", "what changed, where the mask is alive; values only", "up"),
    ("receipt", "the update is on the coordinator's disk: now it counts, once", "down"),
    ("fold", "an exact sum, the same in any order of arrival", "coordinator"),
    ("prune", "in some rounds: a smaller mask, the rest of the weights goes", "coordinator"),
    ("commit", "the next version is on disk, and every byte in the ledger", "coordinator"),
)


def round_picture() -> str:
    """One round between the coordinator and a client, in the order of time."""
    left, right, top, step = 150, 570, 70, 46
    bottom = top + step * len(STEPS)
    parts = [
        _box(left, "coordinator", "model, masks, ledger"),
        _box(right, "client (one of many)", "its data, which stays there"),
    ]
    parts += [f'<line class="d" x1="{x}" y1="58" x2="{x}" y2="{bottom}"/>' for x in (left, right)]
    for number, (name, meaning, way) in enumerate(STEPS):
        parts += _step(left, right, top + 22 + number * step, f"{number + 1}. {name}", meaning, way)
    return _drawing(720, bottom + 10, "One round", parts)


def formats_picture() -> str:
    """The same matrix as people draw it, as CSR, as bits, and as what travels when both ends hold the mask."""
    alive = MATRIX != 0
    values = MATRIX[alive].tolist()
    count, size = len(values), MATRIX.size
    indptr = [0, *np.cumsum(alive.sum(1)).tolist()]
    forms = [
        ("dense", [f"{size} values, zeros included"], 4 * size),
        ("CSR, 32 bits", [f"indptr  {_list(indptr)}", f"indices {_list(np.nonzero(alive)[1].tolist())}", f"values  {_list(values)}"],
         4 * (len(indptr) + 2 * count)),
        ("bitmap", [" ".join("".join("1" if x else "0" for x in row) for row in alive), f"values  {_list(values)}"],
         size // 8 + 4 * count),
        ("ref: both ends hold this mask", ["version of the mask, in the frame's head", f"values  {_list(values)}"], 4 * count),
    ]  # fmt: skip
    parts = list(_matrix(20, 44))
    y = 30
    for name, lines, size_bytes in forms:
        parts.append(f'<text class="h" x="290" y="{y + 14}">{escape(name)}</text>')
        parts.append(f'<text class="h" x="700" y="{y + 14}" text-anchor="end">{size_bytes} bytes</text>')
        parts += [
            f'<text class="m" x="290" y="{y + 32 + 17 * i}">{escape(line)}</text>' for i, line in enumerate(lines)
        ]
        y += 34 + 17 * len(lines)
    return _drawing(720, y + 6, "A matrix of 32 weights, 8 of them alive", parts)


def shares_picture() -> str:
    """Who gets what in the demo."""
    return shares.svg(shares.count(Path(digits.__file__), clients=4), "The demo's digits, four clients")


def _drawing(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><defs>{HEAD}</defs>"
    )
    return "\n".join([head, f'<text class="h" x="20" y="18">{escape(title)}</text>', *parts, "</svg>\n"])


def _box(x: int, name: str, meaning: str) -> str:
    return (
        f'<rect class="b" x="{x - 110}" y="26" width="220" height="38" rx="6"/>'
        f'<text class="h" x="{x}" y="42" text-anchor="middle">{escape(name)}</text>'
        f'<text class="s" x="{x}" y="57" text-anchor="middle">{escape(meaning)}</text>'
    )


def _step(left: int, right: int, y: int, name: str, meaning: str, way: str) -> Iterator[str]:
    if way in ("up", "down"):
        begin, end = (right, left) if way == "up" else (left, right)
        tip = end + (4 if way == "up" else -4)
        yield f'<line class="a" x1="{begin}" y1="{y + 14}" x2="{tip}" y2="{y + 14}" marker-end="url(#p)"/>'
        x, anchor = (left + right) // 2, "middle"
    else:
        x, anchor = (left + 14, "start") if way == "coordinator" else (right - 14, "end")
        yield f'<circle class="k" cx="{left if way == "coordinator" else right}" cy="{y - 2}" r="5"/>'
    yield f'<text class="h" x="{x}" y="{y - 6}" text-anchor="{anchor}">{escape(name)}</text>'
    yield f'<text class="s" x="{x}" y="{y + 9}" text-anchor="{anchor}">{escape(meaning)}</text>'


def _matrix(left: int, top: int) -> Iterator[str]:
    for row, column in np.ndindex(MATRIX.shape):
        x, y, value = left + 30 * column, top + 30 * row, int(MATRIX[row, column])
        yield f'<rect class="{"b" if value else "w"}" x="{x}" y="{y}" width="28" height="28" rx="3"/>'
        if value:
            yield f'<text class="m" x="{x + 14}" y="{y + 18}" text-anchor="middle">{value}</text>'


def _list(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


PAGES = {
    "images/formats.svg": formats_picture,
    "images/round.svg": round_picture,
    "images/shares.svg": shares_picture,
}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, draw in PAGES.items():
        (IMAGES.parent / name).write_text(draw(), encoding="utf-8")
