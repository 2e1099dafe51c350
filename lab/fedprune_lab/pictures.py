"""`fedprune inspect RUN --pictures DIR`: what is left of each layer, as a PNG with a dot for each weight.

A row is an output unit, a column an input with its kernel place; a dot is a weight that is alive. The same painter
draws for the live page and the report, which show less of large layers.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import load_file

from fedprune.errors import LocalError
from fedprune.picture import mask_png

# Beyond this many rows or columns a dot stands for several weights: viewers refuse larger pictures.
LARGEST_SIDE = 16_384


def run(folder: Path, layers: list[str], out: Path) -> list[Path]:
    """Write a picture of each of `layers` of the run's last model to `out`. Raises `LocalError` where there is none."""
    model = folder / "model.safetensors"
    if not model.is_file():
        raise LocalError("there is no model to picture", seen=model, next_step="Name a finished run's folder")
    if not layers:
        raise LocalError("nothing was pruned in this run", seen=folder)
    weights = load_file(model)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in layers:
        path = out / f"{name}.png"
        path.write_bytes(mask_png(weights[name] != 0, largest_side=LARGEST_SIDE))
        written.append(path)
    return written
