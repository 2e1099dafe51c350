"""`fedprune inspect RUN`: how many weights each layer had left after each change of the mask, and what they compute.

Read from the run's report; the coordinator wrote the counts when it changed the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedprune_lab.reading import find, read


def run(path: Path) -> dict[str, Any]:
    """The layers of the first run of a report as one JSON-ready object. Raises `LocalError` when there is none."""
    report = read(find(path))[1][0]
    changes = [row for row in report.rounds if row.layers]
    return {
        "run": report.name,
        "density": report.final.density,
        "masks": [
            {
                "version": row.mask_version,
                "round": row.round,
                "layers": {layer.name: {"alive": layer.alive, "size": layer.size} for layer in row.layers},
            }
            for row in changes
        ],
        "trials": [asdict(row.trial) | {"decided": row.round} for row in report.rounds if row.trial],
        "outcome": report.pruning_outcome,
        "flops": None if report.flops is None else asdict(report.flops),
    }


def folder_of(path: Path) -> Path:
    """The folder of the run that `run` shows."""
    return find(path).parent


def layers_of(whole: dict[str, Any]) -> list[str]:
    """The names of the layers that were pruned."""
    return list(whole["masks"][-1]["layers"]) if whole["masks"] else []


def lines(whole: dict[str, Any]) -> Iterator[str]:
    """What `run` found, as lines for a terminal: a row for each layer, a column for each mask."""
    masks = whole["masks"]
    yield f"{whole['run']}: {len(masks)} changes of the mask, density {whole['density']:.1%} in the end"
    if not masks:
        return
    names = list(masks[0]["layers"])
    width = max(len(name) for name in names)
    yield f"{'layer':<{width}}{'weights':>12}" + "".join(f"{'round ' + str(m['round']):>10}" for m in masks)
    for name in names:
        counts = [m["layers"][name] for m in masks]
        shares = "".join(f"{c['alive'] / c['size']:>10.1%}" for c in counts)
        yield f"{name:<{width}}{counts[0]['size']:>12,}{shares}"
    if flops := whole["flops"]:
        yield from _operations(masks, flops, width)
    for trial in whole["trials"]:
        drop = "" if trial["drop"] is None else f", {100 * trial['drop']:.2f} points lost over {trial['pairs']} clients"
        tried = f"density {trial['density_tried']:.3g} tried with round {trial['round']}"
        yield f"{tried}: {trial['decision']} after round {trial['decided']}{drop}"
    if whole["outcome"]:
        yield whole["outcome"]


def _operations(masks: Sequence[dict[str, Any]], flops: dict[str, Any], width: int) -> Iterator[str]:
    """The operations for an example, in all and layer by layer after the last change."""
    share = flops["left"] / flops["dense"] if flops["dense"] else 1.0
    yield f"operations for an example: {flops['left']:,.0f} of {flops['dense']:,.0f}, {share:.1%}"
    for name, layer in masks[-1]["layers"].items():
        each = flops["per_weight"].get(name, 0.0)
        yield f"  {name:<{width}}{each * layer['alive']:>14,.0f} of {each * layer['size']:,.0f}"
