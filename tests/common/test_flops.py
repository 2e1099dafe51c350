"""Operations by tensor, held against what a hand counts."""

from pathlib import Path

import pytest
import torch

from fedprune.errors import TaskError
from fedprune.flops import Cost, forward_cost
from fedprune.mask import Mask
from fedprune.task import load_task
from fedprune.tensor import Schema
from fedprune.torch import assign_roles, build_model, signature

HEAD = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def train_data(shard):
    return TensorDataset(torch.randn(4, 40), torch.zeros(4, dtype=torch.long))
"""
TAIL = """
def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])
"""


def counted(tmp_path: Path, model: str, *, prune: list[str], tail: str = TAIL) -> tuple[Cost, Schema]:
    path = tmp_path / "task.py"
    path.write_text(f"{HEAD}\n{model}\n{tail}")
    task = load_task(path)
    built = build_model(task)
    schema = assign_roles(signature(built), [], prune)
    data = torch.utils.data.TensorDataset(torch.randn(4, 40), torch.zeros(4, dtype=torch.long))
    return forward_cost(task, built, schema, data), schema


CNN = """
def model():
    return nn.Sequential(
        nn.Unflatten(1, (1, 40)), nn.Conv1d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.Flatten(), nn.Linear(160, 16), nn.ReLU(), nn.Linear(16, 3))
"""


def test_a_weight_of_a_convolution_costs_one_multiply_add_a_place(tmp_path: Path) -> None:
    cost, schema = counted(tmp_path, CNN, prune=["*.weight"])
    assert cost.per_weight == {"1.weight": 20.0, "3.weight": 20.0, "5.weight": 1.0, "7.weight": 1.0}
    by_hand = 20 * 8 * 5 + 20 * 8 * 3 + 160 * 16 + 16 * 3
    assert cost.fixed == 0.0
    assert cost.flops(Mask.full(schema)) == 2 * by_hand


def test_what_is_not_pruned_is_fixed(tmp_path: Path) -> None:
    cost, schema = counted(tmp_path, CNN, prune=[])
    assert "1.weight" not in cost.per_weight
    assert cost.fixed >= 20 * 8 * 5
    assert cost.flops(Mask.full(schema)) == 2 * (20 * 8 * 5 + 20 * 8 * 3 + 160 * 16 + 16 * 3)


def test_recurrent_layers_and_attention(tmp_path: Path) -> None:
    model = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)
    def forward(self, x):
        h, _ = self.rnn(x.view(-1, 10, 4))
        h, _ = self.attention(h, h, h)
        return self.out(h.mean(1))

def model():
    return Net()
"""
    cost, schema = counted(tmp_path, model, prune=["*weight*"])
    # Ten steps of the GRU, ten places of the attention; its two products of activations belong to no weight.
    assert cost.per_weight == {
        "rnn.weight_ih_l0": 10.0,
        "rnn.weight_hh_l0": 10.0,
        "attention.in_proj_weight": 10.0,
        "attention.out_proj.weight": 10.0,
        "out.weight": 1.0,
    }
    assert cost.fixed == 2 * 10 * 10 * 8
    assert len(schema.prunable) == 5


def test_a_task_that_looks_at_numbers_is_told(tmp_path: Path) -> None:
    tail = TAIL.replace("    return", "    if batch[0].sum().item() > 0:\n        pass\n    return")
    with pytest.raises(TaskError, match="cannot be counted"):
        counted(tmp_path, CNN, prune=[], tail=tail)
