"""The picture of the codec bench, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedprune_lab.bench.measuring import Row


def plot(rows: Sequence[Row], path: Path) -> str:
    """Draw places over their entropy and how many times smaller updates are; gives a sentence about what was done."""
    try:
        import matplotlib  # only here: the table and the CSV need none
    except ImportError:
        return "No picture: matplotlib is not installed (pip install matplotlib)"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for net in dict.fromkeys(row.net for row in rows):
        bounds = [(row.density, row.over_bound) for row in rows if _is_mask(row, net) and row.over_bound]
        left.plot([x for x, _ in bounds], [y for _, y in bounds], "o-", label=net)
    left.axhline(1.0, color="grey", linewidth=0.5)
    left.set(xscale="log", xlabel="density", ylabel="bytes / n H(p)", title="Masks, as chosen", ylim=(0.7, 1.4))
    left.legend()
    for coding in ("lossless", "bf16", "int8", "int4", "ternary"):
        points = [(r.density, r.times_smaller) for r in rows if r.what == "update" and r.coding == coding]
        right.plot([x for x, _ in points], [y for _, y in points], "o", label=coding)
    right.set(xscale="log", yscale="log", xlabel="density", ylabel="times smaller than raw dense", title="Updates")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return f"Picture: {path}"


def _is_mask(row: Row, net: str) -> bool:
    return row.net == net and row.coding == "chosen" and (row.what == "mask" or row.what.endswith("n=1000000"))
