import torch
from torch import nn
from torch.utils.data import TensorDataset


def model():
    sizes = nn.Conv1d(1, 16, 5, 2), nn.ReLU(), nn.Conv1d(16, 32, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 13, 3)
    return nn.Sequential(*sizes)


def train_data(shard):
    torch.manual_seed(shard.index)
    kind, time = torch.arange(900) % 3, 6 * torch.rand(900, 1) + torch.linspace(0, 12, 64)
    waves = torch.stack([time.sin(), time.sin().sign(), time % 1])[kind, torch.arange(900)]
    return TensorDataset((waves + 0.5 * torch.randn(900, 64)).unsqueeze(1), kind)


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def metrics(model, batch):
    return {"accuracy": (model(batch[0]).argmax(1) == batch[1]).float().mean().item()}
