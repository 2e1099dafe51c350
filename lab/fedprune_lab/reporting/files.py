"""Writes a report: `report.html`, `report.md` and `rounds.csv`, beside the run or where one says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedprune.errors import LocalError
from fedprune.picture import mask_png
from fedprune.report import RunReport
from fedprune_lab.reading import find, read
from fedprune_lab.reporting import html, text

MODEL = "model.safetensors"
MOST_PICTURES = 24


def write(names: Sequence[Path], out: Path | None) -> tuple[tuple[RunReport, ...], list[Path]]:
    """Report on these runs; gives them, and the files written to `out` (None: beside the first).

    Raises `LocalError` when a run is not there, two have one name, or the folder cannot be written.
    """
    files = [find(name) for name in names]
    found = [(file.parent, run) for file in files for run in read(file)[1]]
    runs = _distinct([run for _, run in found], files)
    pictures = {run.name: masks(folder, run) for folder, run in zip([f for f, _ in found], runs, strict=True)}
    target = out or files[0].parent
    documents = {
        "report.html": html.document(runs, pictures),
        "report.md": text.markdown(runs),
        "rounds.csv": text.rounds_csv(runs),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in documents.items():
            (target / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise LocalError(
            f"the report cannot be written: {error}", next_step="Name another folder with --out"
        ) from error
    return runs, [target / name for name in documents]


def masks(folder: Path, run: RunReport) -> dict[str, bytes]:
    """Pictures of the layers that were pruned, the largest first, from the run's final model: what is not zero."""
    change = next((row for row in reversed(run.rounds) if row.layers), None)
    model = next((file for file in (folder / MODEL, folder / run.name / MODEL) if file.is_file()), None)
    if change is None or model is None:
        return {}
    try:
        weights = load_file(model)
    except (OSError, SafetensorError) as error:
        raise LocalError(
            f"cannot read {model}: {error}", next_step="Name another run, or move the file away"
        ) from error
    layers = sorted(change.layers, key=lambda layer: -layer.size)[:MOST_PICTURES]
    return {layer.name: mask_png(weights[layer.name] != 0) for layer in layers if layer.name in weights}


def _distinct(runs: Sequence[RunReport], files: Sequence[Path]) -> tuple[RunReport, ...]:
    """The same runs; those that share a name are told apart by their folders."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return tuple(runs)
    if len(files) != len(runs) or len({file.parent.name for file in files}) != len(files):
        raise LocalError("two of the runs have one name", seen=", ".join(names), next_step="Give each its own name")
    return tuple(replace(run, name=file.parent.name) for run, file in zip(runs, files, strict=True))
