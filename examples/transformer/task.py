"""A small transformer that learns to look up: the first token says at which place the answer stands.

The sequences are made up, 800 for each client, so the example needs no data. Attention matrices and the
feed-forward layers are pruned; embeddings, positions, norms and the classifier travel whole.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard

LENGTH = 12
SYMBOLS = 10
WIDTH = 48


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(SYMBOLS + LENGTH, WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH + 1, WIDTH) / WIDTH**0.5)
        self.layers = nn.Sequential(*(_layer() for _ in range(2)))
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, sequences: Tensor) -> Tensor:
        """Sequences [n, LENGTH + 1] of tokens to logits [n, SYMBOLS]."""
        encoded = self.layers(self.tokens(sequences) + self.positions)
        logits: Tensor = self.head(encoded[:, 0])
        return logits


def model() -> nn.Module:
    return Lookup()


def train_data(shard: Shard) -> TensorDataset:
    return _sequences(800, seed=1 + shard.index)


def test_data() -> TensorDataset:
    return _sequences(1000, seed=0)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    sequences, answers = batch
    return cross_entropy(model(sequences), answers)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    sequences, answers = batch
    return {"accuracy": (model(sequences).argmax(1) == answers).float().mean().item()}


def _layer() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)


def _sequences(count: int, seed: int) -> TensorDataset:
    """[place, symbol, symbol, ...] and the symbol at that place; places are tokens of their own."""
    generator = torch.Generator().manual_seed(seed)
    symbols = torch.randint(SYMBOLS, (count, LENGTH), generator=generator)
    places = torch.randint(LENGTH, (count, 1), generator=generator)
    return TensorDataset(torch.cat([places + SYMBOLS, symbols], dim=1), symbols.gather(1, places).squeeze(1))
