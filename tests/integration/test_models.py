"""Every kind of model trains, is pruned and reports over real sockets; by a schedule, and as low as accuracy allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from .federation import Federation, run_file, task_file

MLP = """
def model():
    return nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 2))
"""
CNN = """
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 3, padding=1, groups=width, bias=False)
        self.point = nn.Conv1d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.point(self.depthwise(x))))

def model():
    stem = nn.Conv1d(1, 12, 3, padding=1)
    return nn.Sequential(nn.Unflatten(1, (1, 16)), stem, Block(12), Block(12), nn.Flatten(), nn.Linear(192, 2))
"""
RECURRENT = """
class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(4, 12, batch_first=True)
        self.out = nn.Linear(12, 2)

    def forward(self, x):
        states, _ = self.rnn(x.view(-1, 4, 4))
        return self.out(states[:, -1])

def model():
    return Net(nn.{kind})
"""
TRANSFORMER = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
        self.out = nn.Linear(64, 2)

    def forward(self, x):
        return self.out(self.layer(self.embed(x.view(-1, 4, 4))).flatten(1))

def model():
    return Net()
"""
MODELS = {
    "mlp": MLP,
    "cnn": CNN,
    "gru": RECURRENT.replace("{kind}", "GRU"),
    "lstm": RECURRENT.replace("{kind}", "LSTM"),
    "transformer": TRANSFORMER,
}
# Which half of the row is the larger: easy for all of them.
DATA = """
def _rows(seed, count):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 16, generator=g)
    return TensorDataset(x, (x[:, :8].sum(1) > x[:, 8:].sum(1)).long())

def train_data(shard):
    return _rows(100 + shard.index, 120)
"""
TEST = """
def test_data():
    return _rows(7, 200)
"""


@pytest.mark.parametrize("kind", MODELS)
async def test_it_trains_is_pruned_and_reports(tmp_path: Path, kind: str) -> None:
    config = run_file("run.rounds=6", "pruning.density=0.4", "pruning.every=1", "pruning.floor=4", "training.epochs=2")
    federation = Federation(tmp_path, task_file(tmp_path, model=MODELS[kind], data=DATA, test_data=TEST), [config])
    assert await federation.run()
    report = federation.report
    assert report.final.density == pytest.approx(0.4, abs=0.03)
    assert report.final.accuracy is not None
    assert report.final.accuracy > 0.6
    layers = report.rounds[-1].layers or next(r.layers for r in reversed(report.rounds) if r.layers)
    model = load_file(tmp_path / "runs" / "run" / "model.safetensors")
    assert {layer.name: int(np.count_nonzero(model[layer.name])) for layer in layers} == {
        layer.name: layer.alive for layer in layers
    }


@pytest.mark.parametrize("kind", ["mlp", "cnn", "gru"])
async def test_the_density_is_found_within_the_allowed_drop(tmp_path: Path, kind: str) -> None:
    """Real accuracies decide: what was accepted cost no more than allowed, and the run ends with that, or says that
    nothing could be pruned."""
    allowed = 0.04
    config = run_file(
        "run.rounds=16",
        "pruning.density='auto'",
        f"pruning.max_accuracy_drop={allowed}",
        "pruning.recovery=1",
        "pruning.floor=4",
        "pruning.start=0.2",
        "training.held_out=0.4",
        "training.epochs=2",
    )
    federation = Federation(tmp_path, task_file(tmp_path, model=MODELS[kind], data=DATA, test_data=""), [config])
    assert await federation.run()
    report = federation.report
    trials = [row.trial for row in report.rounds if row.trial]
    assert trials
    accepted = [trial for trial in trials if trial.decision == "accepted"]
    assert all(trial.drop is not None and trial.drop <= allowed for trial in accepted)
    assert all(trial.decision != "abandoned" for trial in trials)
    assert report.final.density == pytest.approx(min([1.0, *(t.density_tried for t in accepted)]), abs=1e-9)
    assert report.pruning_outcome.startswith(f"density {report.final.density:.4g} accepted" if accepted else "nothing")
    # Against the dense model, measured on the same held-out rows before the first step.
    measured = {row.round: row.accuracy for row in report.rounds}
    dense = measured[trials[0].round - 1]
    last = report.final.accuracy
    assert dense is not None
    assert last is not None
    assert last >= dense - allowed
