"""What people have on disk, as data that a task can return: picture folders, tables, texts and `datasets` objects.

None of this is needed: a task may return any dataset. What these readers add is what a federation asks for and one
machine does not. Classes are named by the task and not found in the files, so that label 2 is the same thing at a client
that has never seen class 1; a missing column, a strange label or an empty folder is one sentence with the file, for
an owner who cannot show anyone the data. Pillow and pyarrow are imported by the reader that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fedprune.errors import MissingExtraError, TaskError

PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MODES = {1: "L", 3: "RGB"}
# Code 0 is the end of a line and whatever is not listed; the rest are the printable ASCII characters.
ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pictures in one folder for each class, read when they are asked for.

    `folder`/`class`/... holds the pictures of a class, at any depth; a class without a folder has none here. An example
    is (picture [channels, height, width] from 0 to 1, label), the label being the place of its class in `classes`.
    `size` is (height, width), or one number for both. `labels` [n] are all labels, for a partition. Raises `TaskError`
    where there is no picture at all, and for a folder that is no class.
    """

    def __init__(self, folder: Path, *, classes: Sequence[str], size: int | tuple[int, int], channels: int = 3) -> None:
        if channels not in MODES:
            raise TaskError("pictures have 1 or 3 channels", seen=channels)
        self._pillow = _pillow()
        self._mode = MODES[channels]
        self._size = (size, size) if isinstance(size, int) else size
        self._files = list(_pictures(Path(folder), classes))
        self.labels: NDArray[np.int64] = np.array([label for _, label in self._files], np.int64)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self._files[index]
        height, width = self._size
        try:
            with self._pillow.open(file) as picture:
                fitted = picture.convert(self._mode).resize((width, height))
        except OSError as error:
            raise TaskError("a picture cannot be read", party=str(file), seen=str(error)) from error
        pixels = np.asarray(fitted, np.float32).reshape(height, width, -1) / 255
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), label


def in_memory(data: Dataset[Any]) -> TensorDataset:
    """All examples of a dataset, read once: batches are then cut out of whole tensors, many times faster for small
    examples. Each must be a tuple of tensors and numbers of the same shapes."""
    count = len(data)  # type: ignore[arg-type]  # datasets of examples have a length
    columns = zip(*(data[i] for i in range(count)), strict=True)
    return TensorDataset(*(torch.stack([torch.as_tensor(value) for value in column]) for column in columns))


def table(
    path: Path, *, columns: Sequence[str], label: str, classes: Sequence[str | int | bool] | None = None
) -> TensorDataset:
    """The rows of a CSV or Parquet file: (`columns` as float32 [n, columns], labels [n]).

    With `classes` a label is the place of its value in them, an int64; without, the value itself as float32, to predict a
    number. The first line of a CSV names its columns. Raises `TaskError` for a column that is not there or not numeric,
    for a value that is missing and for a label that is no class.
    """
    rows = _read_table(Path(path), [*columns, label])
    features = [_numbers(path, rows, name) for name in columns]
    labels = _numbers(path, rows, label) if classes is None else _places(path, rows, label, classes)
    return TensorDataset(torch.from_numpy(np.stack(features, axis=1)), torch.from_numpy(labels))


def text(path: Path, *, window: int, stride: int | None = None, alphabet: str = ALPHABET) -> TensorDataset:
    """Windows of a text and the character that follows each place: (codes [n, window], codes [n, window]), both int64.

    `path` is a UTF-8 file, or a folder of `.txt` files read in the order of their names. A code is the character's place in
    `alphabet`; other characters are coded 0. Windows begin every `stride` characters, `window` without one. Raises
    `TaskError` for a text that is shorter than one window.
    """
    return windows(_read_text(Path(path)), window=window, stride=stride, alphabet=alphabet, source=str(path))


def windows(
    content: str, *, window: int, stride: int | None = None, alphabet: str = ALPHABET, source: str = "the text"
) -> TensorDataset:
    """The same for a text that is at hand; `source` is what an error calls it."""
    if len(content) <= window:
        raise TaskError("a text is too short", party=source, seen=len(content), expected=f"over {window} characters")
    places = {character: place for place, character in enumerate(alphabet)}
    codes = torch.tensor([places.get(character, 0) for character in content])
    cut = codes.unfold(0, window + 1, stride or window)
    return TensorDataset(cut[:, :-1], cut[:, 1:])


class Columns(Dataset[tuple[Any, ...]]):
    """Columns of a `datasets.Dataset` as examples: a tuple of tensors in the order of `names`, instead of a dict.

    Pictures of a `datasets.Image` column come as uint8 [channels, height, width], as the library gives them. Raises
    `TaskError` for a column that is not there.
    """

    def __init__(self, dataset: Any, *names: str) -> None:
        for name in names:
            if name not in dataset.column_names:
                raise TaskError("the dataset has no such column", seen=name, expected=" | ".join(dataset.column_names))
        self._rows = dataset.with_format("torch", columns=list(names))
        self._names = names

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        row = self._rows[index]
        return tuple(row[name] for name in self._names)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading pictures needs Pillow", next_step="pip install 'fedprune[images]'") from error
    return Image


def _pictures(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    if not folder.is_dir():
        raise TaskError("there is no folder of pictures", seen=str(folder), next_step="Check --data")
    strange = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes and p.name[0] != ".")
    if strange:
        raise TaskError("a folder is no class", party=str(folder), seen=strange[0], expected=" | ".join(classes))
    found = [
        (file, label)
        for label, name in enumerate(classes)
        for file in sorted((folder / name).rglob("*"))
        if file.suffix.lower() in PICTURES
    ]
    if not found:
        raise TaskError("no pictures", party=str(folder), expected=f"folders called {', '.join(classes)}")
    return found


def _read_table(path: Path, names: Sequence[str]) -> Any:
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ImportError as error:
        raise MissingExtraError("reading tables needs pyarrow", next_step="pip install 'fedprune[tables]'") from error
    if not path.is_file():
        raise TaskError("there is no table", seen=str(path), next_step="Check --data")
    try:
        whole = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
    except pyarrow.ArrowInvalid as error:
        raise TaskError("a table cannot be read", party=str(path), seen=str(error).splitlines()[0]) from error
    for name in names:
        if name not in whole.column_names:
            raise TaskError(
                "a table has no such column", party=str(path), seen=name, expected=" | ".join(whole.column_names)
            )
        if missing := whole[name].null_count:
            raise TaskError(f"column {name!r} has empty cells", party=str(path), seen=missing, expected="none")
    return whole


def _numbers(path: Path, rows: Any, name: str) -> NDArray[np.float32]:
    values = rows[name].to_numpy()
    if values.dtype.kind not in "biuf":
        first = str(values[0]) if len(values) else "nothing"
        raise TaskError(f"column {name!r} is not numeric", party=str(path), seen=first, expected="numbers")
    return np.asarray(values, np.float32)


def _places(path: Path, rows: Any, name: str, classes: Sequence[str | int | bool]) -> NDArray[np.int64]:
    places = {value: place for place, value in enumerate(classes)}
    values = rows[name].to_pylist()
    for line, value in enumerate(values, start=1):
        if value not in places:
            expected = " | ".join(map(str, classes))
            raise TaskError(f"row {line} has no known {name!r}", party=str(path), seen=repr(value), expected=expected)
    return np.array([places[value] for value in values], np.int64)


def _read_text(path: Path) -> str:
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise TaskError("there is no text", seen=str(path), expected="a file, or a folder of .txt files")
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
