"""A federation in one process is a real one; and attackers see what they are said to see and change what they send."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedprune.config import RunConfig
from fedprune.report import RunReport
from fedprune.task import Task, load_task
from fedprune_lab.attacks import ATTACKS, Attack, BentLink, Gang, Vector
from fedprune_lab.one_process import OneProcess

CLIENTS = 4
TASK = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def model():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

def train_data(shard):
    g = torch.Generator().manual_seed(shard.index)
    x = torch.randn(32, 6, generator=g)
    return TensorDataset(x, x[:, :3].argmax(1))

def test_data():
    return train_data(type("S", (), {"index": 99}))

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def metrics(model, batch):
    return {"accuracy": (model(batch[0]).argmax(1) == batch[1]).float().mean().item()}
"""


def task(folder: Path) -> Task:
    path = folder / "task.py"
    path.write_text(TASK)
    return load_task(path)


def config(name: str) -> RunConfig:
    keys = (f'run.name="{name}"', "run.rounds=3", f"clients.expect={CLIENTS}", "training.held_out=0.0")
    return RunConfig.loads("", overrides=keys)


def attacked(folder: Path, attack: Attack | None) -> tuple[RunReport, dict[str, NDArray[np.float32]]]:
    """One run with one attacker: its report and its final weights."""
    gang = Gang(clients=CLIENTS, attackers=1, attack={"run": attack})
    folder.mkdir()
    federation = OneProcess(
        configs=[config("run")], task=task(folder), clients=CLIENTS, out=folder / "runs", link=partial(BentLink, gang)
    )
    (report,) = federation.run()
    return report, load_file(folder / "runs" / "run" / "model.safetensors")


def test_runs_are_done_one_after_another_and_each_is_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    federation = OneProcess(
        configs=[config("one"), config("two")],
        task=task(tmp_path),
        clients=CLIENTS,
        out=tmp_path / "runs",
        finished=lambda report: told.append(report.name),
    )
    reports = federation.run()
    assert told == ["one", "two"] == [report.name for report in reports]
    for report in reports:
        assert [row.clients_counted for row in report.rounds] == [CLIENTS] * 3
        assert report.totals.socket is not None, "bytes are the kernel's"
        assert report.totals.socket.up > report.totals.payload.up > 0


def test_attackers_know_what_the_others_sent(tmp_path: Path) -> None:
    seen: list[tuple[tuple[int, ...], bool]] = []

    def watching(own: Vector, honest: NDArray[np.float32]) -> Vector:
        seen.append((honest.shape, bool(own.any() and honest.any(axis=1).all())))
        return own

    report, watched = attacked(tmp_path / "watched", watching)
    _, untouched = attacked(tmp_path / "untouched", None)
    assert seen == [((CLIENTS - 1, report.parameters), True)] * 3
    for name, array in untouched.items():
        np.testing.assert_allclose(watched[name], array, rtol=1e-5, atol=1e-6)


def test_what_an_attacker_makes_of_it_is_what_counts(tmp_path: Path) -> None:
    """Against the mean of the honest, and as long as all of theirs together: the model does not move."""

    def undoing(own: Vector, honest: NDArray[np.float32]) -> Vector:
        return np.asarray(-honest.sum(0), np.float32)

    report, stuck = attacked(tmp_path / "stuck", undoing)
    losses = [row.metrics["loss"] or 0.0 for row in report.rounds]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
    _, moved = attacked(tmp_path / "moved", None)
    assert any(not np.allclose(stuck[name], moved[name], atol=1e-3) for name in stuck)


def test_the_attacks_are_what_their_papers_say() -> None:
    rng = np.random.default_rng(1)
    own, honest = rng.standard_normal(5, np.float32), rng.standard_normal((8, 5), np.float32)
    bent = {name: attack(own, honest) for name, attack in ATTACKS.items()}
    np.testing.assert_allclose(bent["sign flip"], -4 * own, rtol=1e-6)
    np.testing.assert_allclose(bent["scaling"], 10 * own, rtol=1e-6)
    np.testing.assert_allclose(bent["ALIE"], honest.mean(0) - 1.5 * honest.std(0), rtol=1e-5)
    np.testing.assert_allclose(bent["IPM"], -0.5 * honest.mean(0), rtol=1e-5)
