"""The first page's task: short enough to be worth the claim, and a federation trains and prunes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fedprune.config import RunConfig

from .federation import Federation

PAGE = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
MOST_LINES = 15


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_it_is_as_short_as_it_says() -> None:
    lines = [line for line in block("python").splitlines() if line.strip() and not line.startswith("#")]
    assert 8 < len(lines) <= MOST_LINES


async def test_it_trains_and_is_pruned(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(block("python"))
    points = torch.randn(90, 784, generator=torch.Generator().manual_seed(1))
    torch.save((points, points[:, :10].argmax(1)), tmp_path / "train.pt")
    short = ["run.rounds=8", "pruning.every=1", "pruning.end=0.5", "training.learning_rate=0.1", "training.epochs=2"]
    config = RunConfig.loads(block("toml"), overrides=short)
    federation = Federation(tmp_path, tmp_path / "task.py", [config])
    assert await federation.run()
    assert federation.report.clients == config.clients.expect == 3
    assert federation.report.final.density == pytest.approx(config.pruning.density, abs=0.02)
    losses = [row.metrics["loss"] for row in federation.rounds if row.metrics]
    assert None not in (losses[0], losses[-1])
    assert losses[-1] < losses[0]  # type: ignore[operator]  # as the line before says
