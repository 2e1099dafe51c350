"""Guess the next character: a recurrent network, and a training loop of its own.

Each client reads `text.txt` in the folder it was given; without one it takes its poet from `poems.txt`, so that the
example runs as it is. The loop clips gradients, as recurrent networks want; masks hold in it all the same.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard

POEMS = Path(__file__).parent / "poems.txt"
FIRST, SYMBOLS = 32, 96  # printable ASCII, and the end of a line in the place of what is not
WINDOW, STRIDE = 64, 16
LAST_SHARE = 0.1  # of each text, kept for the test
CLIP_NORM = 1.0


class NextCharacter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 32)
        self.core = nn.GRU(32, 160, batch_first=True)
        self.head = nn.Linear(160, SYMBOLS)

    def forward(self, characters: Tensor) -> Tensor:
        """Characters [n, t] to logits [n, SYMBOLS, t] of the one that follows each."""
        states, _ = self.core(self.embedding(characters))
        logits: Tensor = self.head(states).transpose(1, 2)
        return logits


def model() -> nn.Module:
    return NextCharacter()


def train_data(shard: Shard) -> TensorDataset:
    own = shard.path / "text.txt"
    texts = [own.read_text()] if own.is_file() else _poets()
    text = texts[shard.index % len(texts)]
    return _windows(text[: _cut(text)])


def test_data() -> TensorDataset:
    """The last lines of each poet, which nobody trains on."""
    parts = [_windows(text[_cut(text) :]).tensors for text in _poets()]
    return TensorDataset(*(torch.cat(column) for column in zip(*parts, strict=True)))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    characters, following = batch
    return cross_entropy(model(characters), following)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    characters, following = batch
    return {"accuracy": (model(characters).argmax(1) == following).float().mean().item()}


def train(model: nn.Module, data: TensorDataset, ctx: Any) -> None:
    optimizer = ctx.optimizer(model)
    for batch in ctx.batches(data):
        optimizer.zero_grad()
        loss(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()


def _poets() -> list[str]:
    return POEMS.read_text().split("%%\n")


def _cut(text: str) -> int:
    return int(len(text) * (1 - LAST_SHARE))


def _windows(text: str) -> TensorDataset:
    """Windows [n, WINDOW] of the text, and the same windows one character later."""
    codes = torch.tensor([min(max(ord(c) - FIRST, 0), SYMBOLS - 1) if c != "\n" else SYMBOLS - 1 for c in text])
    windows = codes.unfold(0, WINDOW + 1, STRIDE)
    return TensorDataset(windows[:, :-1], windows[:, 1:])
