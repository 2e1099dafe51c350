"""Who got what: the examples of each label at each client, counted from what a task's own `train_data` gives.

How lopsided the clients are decides more about an experiment than most of its settings, so it should be seen before
anything is trained. The counts come from the task and not from a partitioner: a split made in any way shows as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from torch import Tensor, is_floating_point
from torch.utils.data import TensorDataset

from fedprune.batches import check_data, is_indexed
from fedprune.errors import TaskError
from fedprune.task import Shard, Task, UserCode, load_task

NO_LABEL = "examples"
MOST_LABELS = 40
LABEL_KEYS = ("label", "labels", "target", "y")
# Okabe and Ito (2008) and two of Tol's: told apart with any kind of colour vision. Further labels take them again, paler.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999", "#332288", "#882255")
LEFT, RIGHT, BAR, GAP, TOP, WIDTH = 90, 70, 20, 8, 44, 720


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """`counts[client][label]` examples; one label called "examples" where the data has none, or none that can be
    counted."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Examples of each client."""
        return tuple(map(sum, self.counts))

    @property
    def skew(self) -> float:
        """How far a client's labels are from everyone's: 0 alike, towards 1 each its own. The mean over clients of the
        total variation distance between both shares of labels."""
        counts = np.array(self.counts, np.float64)
        whole = counts.sum(0) / counts.sum()
        return float(np.abs(counts / counts.sum(1, keepdims=True) - whole).sum(1).mean() / 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"labels": self.labels, "counts": self.counts, "sizes": self.sizes, "skew": self.skew}


def count(path: Path, *, clients: int, data: Path | None = None, seed: int = 1) -> Shares:
    """Load the data of each of `clients` clients in turn and count its labels. Raises `TaskError` naming the function."""
    task = load_task(path)
    found = [
        _labels(task, Shard(index=i, count=clients, path=data or task.path.parent, seed=seed)) for i in range(clients)
    ]
    known = sorted(set().union(*found), key=lambda label: (isinstance(label, str), label))
    if len(known) > MOST_LABELS:
        found, known = [Counter({NO_LABEL: sum(counter.values())}) for counter in found], [NO_LABEL]
    return Shares(
        labels=tuple(map(str, known)), counts=tuple(tuple(counter[label] for label in known) for counter in found)
    )


def table(shares: Shares) -> Table:
    """The counts as a terminal shows them, a row for each client."""
    shown = Table(highlight=False, caption=f"skew {shares.skew:.2f}", caption_justify="left")
    for heading in ("client", *shares.labels, "all"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for index, (row, size) in enumerate(zip(shares.counts, shares.sizes, strict=True)):
        shown.add_row(str(index), *(f"{n:,}" if n else "·" for n in row), f"{size:,}")
    return shown


def svg(shares: Shares, title: str) -> str:
    """A picture: one bar for each client, as long as its data, in the colours of its labels."""
    height = TOP + len(shares.counts) * (BAR + GAP) + 14
    scale = (WIDTH - LEFT - RIGHT) / max(shares.sizes)
    bars = [_bar(shares, client, scale) for client in range(len(shares.counts))]
    style = (
        "text{font:12px system-ui,sans-serif;fill:#333}.h{font-weight:600}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
            f"<title>{escape(title)}</title><style>{style}</style>",
            f'<text class="h" x="0" y="14">{escape(title)}</text>',
            *_legend(shares.labels),
            *bars,
            "</svg>\n",
        ]
    )


def _bar(shares: Shares, client: int, scale: float) -> str:
    y, x, parts = TOP + client * (BAR + GAP), float(LEFT), []
    for place, number in enumerate(shares.counts[client]):
        said = f"<title>{escape(shares.labels[place])}: {number:,}</title>"
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{number * scale:.1f}" height="{BAR}" {_paint(place)}>{said}</rect>'
        )
        x += number * scale
    words = f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">client {client}</text>'
    return words + "".join(parts) + f'<text x="{x + 6:.1f}" y="{y + 14}">{shares.sizes[client]:,}</text>'


def _legend(labels: tuple[str, ...]) -> list[str]:
    step = min(70.0, (WIDTH - LEFT) / len(labels))
    return [
        f'<rect x="{LEFT + place * step:.1f}" y="24" width="10" height="10" {_paint(place)}/>'
        f'<text x="{LEFT + place * step + 14:.1f}" y="33">{escape(label)}</text>'
        for place, label in enumerate(labels)
    ]


def _paint(place: int) -> str:
    return f'fill="{COLOURS[place % len(COLOURS)]}" fill-opacity="{0.55 ** (place // len(COLOURS)):.2f}"'


def _labels(task: Task, shard: Shard) -> Counter[Any]:
    data = task.train_data(shard)
    check_data(data, function="train_data", party=f"{task.path.name}, shard {shard.index} of {shard.count}")
    if not is_indexed(data):
        raise TaskError(
            "`train_data` returns data that cannot be counted",
            party=task.path.name,
            seen=type(data).__name__,
            expected="a dataset with a length",
        )
    with UserCode(task.path, "reading `train_data`"):
        return Counter(_known(data))


def _known(data: Any) -> Iterable[Any]:
    """The label of each example, without loading examples where the labels lie apart."""
    if hasattr(data, "labels") and len(data.labels) == len(data):
        return list(np.asarray(data.labels).tolist())
    if isinstance(data, TensorDataset):
        last = data.tensors[-1]
        return last.tolist() if last.dim() == 1 and not is_floating_point(last) else [NO_LABEL] * len(data)
    return [_label(data[i]) for i in range(len(data))]


def _label(example: Any) -> int | str:
    """The last part of a tuple, or the part of a dict that is called a label; "examples" where that is no label."""
    if isinstance(example, Mapping):
        last = next((example[key] for key in LABEL_KEYS if key in example), None)
    else:
        last = example[-1] if isinstance(example, tuple | list) else None
    if isinstance(last, Tensor | np.generic) and last.ndim == 0:
        last = last.item()
    return last if isinstance(last, int | str) else NO_LABEL
