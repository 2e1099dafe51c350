"""What the benches under bench/ share: a quiet federation on a dense model, and results kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune.compression_section import CompressionSection
from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune.report import RunReport
from fedprune.section import Values
from fedprune_lab.federation import Federation
from fedprune_lab.view import LineView

OUT = Path("bench/out")


def dense_run(
    task: Path,
    *,
    clients: int,
    rounds: int,
    batch_size: int = 32,
    light: bool = False,
    values: Values = "lossless",
    look: Callable[[int], None] | None = None,
) -> RunReport:
    """One dense run with one local step a round and no evaluation before the last; `values` as in the run file, both
    ways; `light` and `look` as in `Federation`, and a coordinator that is watched starts cold, as a user's does."""
    config = RunConfig(
        run=RunSection(name="bench", rounds=rounds, evaluate_every=0),
        clients=ClientsSection(expect=clients, min_clients=clients, deadline_s=120.0),
        training=TrainingSection(steps=1, batch_size=batch_size, held_out=0.0),
        compression=CompressionSection(up=values, down=values),
    )
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(
            configs=[config],
            task=task,
            clients=clients,
            out=Path(folder) / "run",
            cold=look is not None,
            light=light,
            look=look,
        )
        (run,), _ = federation.run(LineView(Console(stderr=True)))
    return run


def keep(name: str, result: Mapping[str, Any]) -> Path:
    """Write a bench's result with the machine it was seen on to bench/out/`name`.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "load_1_min": os.getloadavg()[0]}
    path = OUT / f"{name}.json"
    path.write_text(json.dumps({**result, "machine": machine}, indent=1) + "\n")
    return path
