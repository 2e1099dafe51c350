"""The picture of the network bench, where matplotlib is installed: accuracy over time, a panel for each link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from fedprune.report import RunReport
from fedprune_lab.link import rate_text


def plot(runs: Mapping[float, Sequence[RunReport]], path: Path) -> str:
    """Draw accuracy over the seconds of training, by rate in bit/s; gives a sentence about what was done."""
    try:
        import matplotlib  # only here: the table and the CSV need none
    except ImportError:
        return "No picture: matplotlib is not installed (pip install matplotlib)"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(runs), figsize=(4 * len(runs) + 1, 4), sharey=True, squeeze=False)
    for panel, (rate, those) in zip(panels[0], sorted(runs.items()), strict=True):
        for run in those:
            scored = [
                (s, r.accuracy) for s, r in zip(_elapsed_s(run), run.rounds, strict=True) if r.accuracy is not None
            ]
            panel.plot([s for s, _ in scored], [100 * a for _, a in scored], label=run.name)
        panel.set(title=f"{rate_text(rate)} a client", xlabel="seconds of training", xscale="log")
    panels[0][0].set(ylabel="accuracy, %")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return f"picture: {path}"


def _elapsed_s(run: RunReport) -> list[float]:
    return list(accumulate(row.seconds for row in run.rounds))
