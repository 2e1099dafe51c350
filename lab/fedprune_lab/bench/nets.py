"""The nets of the codec bench and data that they can learn, from 68 thousand to 11 million parameters.

Masks and updates of trained nets have structure that noise has not, so the bench trains: shortly, but for real. Every
builder takes a seed and gives a model, and a function that draws a batch for one of two label-skewed clients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY = 2000
CONTEXT = 32
DIGITS = Path(__file__).parents[1] / "data" / "digits.npz"

Batch = tuple[Tensor, Tensor]
Draw = Callable[[int, np.random.Generator], Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A model to train, `draw(client, rng)` its data, and how long: steps at first, and of a client in a round."""

    name: str
    model: nn.Module
    draw: Draw
    steps: int
    client_steps: int
    adam: bool = False
    learning_rate: float = 0.05


def skewed(labels: Tensor, classes: int, client: int, rng: np.random.Generator, size: int) -> Tensor:
    """Indices of a batch in which a client sees its own half of the classes three times out of four."""
    own = (labels % 2 == client % 2) if classes > 1 else torch.ones_like(labels, dtype=torch.bool)
    pools = [torch.nonzero(own).reshape(-1).numpy(), torch.nonzero(~own).reshape(-1).numpy()]
    cut = size * 3 // 4
    return torch.from_numpy(np.concatenate([rng.choice(pools[0], cut), rng.choice(pools[1], size - cut)]))


def digits_mlp(seed: int) -> Net:
    """67,914 parameters on the 8x8 digits."""
    torch.manual_seed(seed)
    with np.load(DIGITS) as data:
        images = torch.from_numpy(data["train_images"].reshape(-1, 64).astype(np.float32) / 16)
        labels = torch.from_numpy(data["train_labels"].astype(np.int64))
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 192), nn.ReLU(), nn.Linear(192, 10))
    return Net(name="digits_mlp", model=model, draw=_draw(images, labels, 32), steps=1500, client_steps=40)


def mnist1d_cnn(seed: int) -> Net:
    """263 thousand parameters on mnist1d."""
    from mnist1d.data import get_dataset_args, make_dataset  # a package of the bench alone

    torch.manual_seed(seed)
    data = make_dataset(get_dataset_args())
    images = torch.from_numpy(np.asarray(data["x"], np.float32)).unsqueeze(1)
    labels = torch.from_numpy(np.asarray(data["y"], np.int64))
    model = nn.Sequential(
        nn.Conv1d(1, 64, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(64, 128, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(128, 128, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1280, 106),
        nn.ReLU(),
        nn.Linear(106, 10),
    )
    return Net(name="mnist1d_cnn", model=model, draw=_draw(images, labels, 64), steps=1500, client_steps=40)


class Gpt(nn.Module):
    """A decoder of 4 layers and width 256 over `VOCABULARY` words."""

    def __init__(self, width: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.places = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, words: Tensor) -> Tensor:
        """Logits [batch, time, words]."""
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
        hidden = self.blocks(self.words(words) + self.places[: words.shape[1]], mask=mask, is_causal=True)
        return torch.as_tensor(self.head(hidden))


class Lstm(nn.Module):
    """Two layers of 512 over `VOCABULARY` words, output tied to nothing."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 256)
        self.lstm = nn.LSTM(256, width, 2, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, words: Tensor) -> Tensor:
        """Logits [batch, time, words]."""
        return torch.as_tensor(self.head(self.lstm(self.words(words))[0]))


def gpt_small(seed: int) -> Net:
    """4.2 million parameters on Markov text."""
    torch.manual_seed(seed)
    return Net(
        name="gpt_small", model=Gpt(), draw=_text(seed), steps=120, client_steps=8, adam=True, learning_rate=1e-3
    )


def lstm2(seed: int) -> Net:
    """5.2 million parameters on Markov text."""
    torch.manual_seed(seed)
    return Net(name="lstm2", model=Lstm(), draw=_text(seed), steps=100, client_steps=8, adam=True, learning_rate=2e-3)


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps in, feature maps out."""
        hidden = functional.relu(self.norm1(self.first(images)))
        return functional.relu(self.norm2(self.second(hidden)) + self.around(images))


def resnet18(seed: int) -> Net:
    """11.2 million parameters (the stem for 32x32 images) on prototypes with noise."""
    torch.manual_seed(seed)
    blocks: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    blocks += [Block(*width) for width in [*widths, (512, 512, 1)]]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    prototypes = torch.randn(10, 3, 32, 32)
    labels = torch.arange(10).repeat(200)

    def draw(client: int, rng: np.random.Generator) -> Batch:
        wanted = labels[skewed(labels, 10, client, rng, 32)]
        noise = torch.from_numpy(rng.standard_normal((32, 3, 32, 32), np.float32))
        return prototypes[wanted] + 2 * noise, wanted

    return Net(name="resnet18", model=model, draw=draw, steps=30, client_steps=4, learning_rate=0.01)


def _draw(images: Tensor, labels: Tensor, size: int) -> Draw:
    def draw(client: int, rng: np.random.Generator) -> Batch:
        at = skewed(labels, 10, client, rng, size)
        return images[at], labels[at]

    return draw


def _text(seed: int) -> Draw:
    """A Markov chain whose words are drawn by Zipf's law; each client prefers its own half of the successors."""
    rng = np.random.default_rng(seed)
    zipf = 1 / np.arange(1, VOCABULARY + 1)
    successors = rng.choice(VOCABULARY, size=(2, VOCABULARY, 16), p=zipf / zipf.sum())

    def draw(client: int, rng: np.random.Generator) -> Batch:
        words = np.empty((16, CONTEXT + 1), np.int64)
        words[:, 0] = rng.choice(VOCABULARY, 16, p=zipf / zipf.sum())
        for at in range(CONTEXT):
            side = np.where(rng.random(16) < 0.75, client % 2, 1 - client % 2)
            words[:, at + 1] = successors[side, words[:, at], rng.integers(0, 16, 16)]
        text = torch.from_numpy(words)
        return text[:, :-1], text[:, 1:]

    return draw


NETS: dict[str, Callable[[int], Net]] = {
    "digits_mlp": digits_mlp,
    "mnist1d_cnn": mnist1d_cnn,
    "gpt_small": gpt_small,
    "lstm2": lstm2,
    "resnet18": resnet18,
}
