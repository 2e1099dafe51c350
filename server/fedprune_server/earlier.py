"""The runs that were over before this process began, for whoever watches it go on with the ones after them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedprune.config import RunConfig
from fedprune.errors import LocalError
from fedprune.report import RunReport, read_document
from fedprune_server.onlookers import Begun
from fedprune_server.workshop import Workshop

REPORT = "report.json"


def earlier_runs(out: Path, configs: Sequence[RunConfig], workshop: Workshop) -> list[tuple[Begun, RunReport]]:
    """Each run with its report; one whose files are gone, or whose report cannot be read, is left out."""
    found = []
    for config in configs:
        folders = [folder for folder in _folders(out, config.run.name) if (folder / REPORT).is_file()]
        if folders:
            latest = max(folders, key=lambda folder: (folder / REPORT).stat().st_mtime)
            found += _read(latest, config, workshop)
    return found


def _folders(out: Path, name: str) -> list[Path]:
    return [out / name, *sorted(out.glob(f"{name}-[0-9]*"))]


def _read(folder: Path, config: RunConfig, workshop: Workshop) -> list[tuple[Begun, RunReport]]:
    try:
        (report,) = read_document((folder / REPORT).read_text(encoding="utf-8"), name=str(folder / REPORT))
    except (LocalError, OSError, ValueError):
        return []
    begun = Begun(
        run_id=folder.name, config=config, folder=folder, schema=workshop.schema_for(config), done=report.rounds
    )
    return [(begun, report)]
