"""Readers for what people have on disk: values and labels as they lie there, and one sentence for what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fedprune import data
from fedprune.batches import batches
from fedprune.errors import MissingExtraError, TaskError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two grey cats, one below another folder, and a red dog; of birds, which come first, there are none."""
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name in ("cats/deep", "dogs", ".cache"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("L", (6, 4), 255).save(tmp_path / "cats" / "a.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "cats" / "deep" / "b.JPG", format="jpeg")
    Image.new("RGB", (4, 4), (255, 0, 51)).save(tmp_path / "dogs" / "c.bmp")
    (tmp_path / "cats" / "notes.txt").write_text("no picture")
    return tmp_path


CLASSES = ("birds", "cats", "dogs")


class TestPictures:
    def test_they_come_scaled_and_with_their_class(self, pictures: Path) -> None:
        found = data.ImageFolder(pictures, classes=CLASSES, size=(2, 3))
        assert found.labels.tolist() == [1, 1, 2]
        picture, label = found[2]
        assert (picture.shape, picture.dtype, label) == ((3, 2, 3), torch.float32, 2)
        assert picture[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])

    def test_grey_has_one_channel(self, pictures: Path) -> None:
        picture, _ = data.ImageFolder(pictures, classes=CLASSES, size=4, channels=1)[0]
        assert (picture.shape, picture.min().item()) == ((1, 4, 4), 1.0)

    def test_a_folder_batches_like_the_same_in_memory(self, pictures: Path) -> None:
        lazy = data.ImageFolder(pictures, classes=CLASSES, size=4)
        one, other = (next(batches(d, 8, None)) for d in (lazy, data.in_memory(lazy)))
        assert torch.equal(one[0], other[0])
        assert one[1].tolist() == other[1].tolist() == [1, 1, 2]

    @pytest.mark.parametrize(
        ("classes", "message"),
        [(("birds", "cats"), r"a folder is no class \(got dogs"), (("x",), "is no class"), ((), "is no class")],
    )
    def test_a_folder_that_is_no_class(self, pictures: Path, classes: tuple[str, ...], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            data.ImageFolder(pictures, classes=classes, size=4)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(TaskError, match="no pictures"):
            data.ImageFolder(tmp_path, classes=CLASSES, size=4)
        with pytest.raises(TaskError, match="no folder of pictures"):
            data.ImageFolder(tmp_path / "none", classes=CLASSES, size=4)

    def test_a_broken_picture_is_named(self, pictures: Path) -> None:
        (pictures / "dogs" / "c.bmp").write_bytes(b"BM and no more")
        with pytest.raises(TaskError, match=r"c\.bmp: a picture cannot be read"):
            data.ImageFolder(pictures, classes=CLASSES, size=4)[2]

    def test_channels(self, pictures: Path) -> None:
        with pytest.raises(TaskError, match="1 or 3 channels"):
            data.ImageFolder(pictures, classes=CLASSES, size=4, channels=2)

    def test_without_pillow(self, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'fedprune\[images\]'"):
            data.ImageFolder(pictures, classes=CLASSES, size=4)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = tmp_path / "patients.csv"
    path.write_text("age,dose,name,ill,grade\n50,0.5,ann,yes,1\n61,1.25,bob,no,3\n")
    return path


class TestTables:
    def test_columns_and_classes(self, csv: Path) -> None:
        rows, labels = data.table(csv, columns=["dose", "age"], label="ill", classes=["no", "yes"]).tensors
        assert (rows.dtype, rows.tolist()) == (torch.float32, [[0.5, 50.0], [1.25, 61.0]])
        assert (labels.dtype, labels.tolist()) == (torch.int64, [1, 0])

    def test_a_number_to_predict(self, csv: Path) -> None:
        _, labels = data.table(csv, columns=["age"], label="dose").tensors
        assert (labels.dtype, labels.tolist()) == (torch.float32, [0.5, 1.25])

    def test_classes_may_be_numbers(self, csv: Path) -> None:
        assert data.table(csv, columns=["age"], label="grade", classes=[1, 2, 3]).tensors[1].tolist() == [0, 2]

    def test_parquet_is_the_same(self, csv: Path) -> None:
        from pyarrow import csv as reader
        from pyarrow import parquet

        parquet.write_table(reader.read_csv(csv), csv.with_suffix(".parquet"))
        one, other = (
            data.table(p, columns=["age", "dose"], label="ill", classes=["no", "yes"])
            for p in (csv, csv.with_suffix(".parquet"))
        )
        assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))

    @pytest.mark.parametrize(
        ("columns", "label", "message"),
        [
            (["size"], "ill", r"no such column \(got size, expected age \| dose \| name \| ill \| grade\)"),
            (["name"], "ill", r"column 'name' is not numeric \(got ann, expected numbers\)"),
            (["age"], "name", r"row 1 has no known 'name' \(got 'ann', expected no \| yes\)"),
        ],
    )
    def test_what_is_wrong_is_named(self, csv: Path, columns: list[str], label: str, message: str) -> None:
        with pytest.raises(TaskError, match=r"patients\.csv: .*" + message):
            data.table(csv, columns=columns, label=label, classes=["no", "yes"])

    def test_an_empty_cell(self, csv: Path) -> None:
        csv.write_text("age,ill\n50,yes\n,no\n")
        with pytest.raises(TaskError, match=r"column 'age' has empty cells \(got 1, expected none\)"):
            data.table(csv, columns=["age"], label="ill", classes=["no", "yes"])

    def test_no_table(self, csv: Path) -> None:
        with pytest.raises(TaskError, match="there is no table"):
            data.table(csv.with_name("none.csv"), columns=["age"], label="ill")
        csv.write_text("age,ill\n1,2,3\n")
        with pytest.raises(TaskError, match="a table cannot be read"):
            data.table(csv, columns=["age"], label="ill")

    def test_without_pyarrow(self, csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'fedprune\[tables\]'"):
            data.table(csv, columns=["age"], label="ill")


class TestTexts:
    def test_windows_and_what_follows(self, tmp_path: Path) -> None:
        (tmp_path / "text.txt").write_text("abcdefg")
        seen, following = data.text(tmp_path / "text.txt", window=3, stride=2, alphabet="?abcdefg").tensors
        assert seen.tolist() == [[1, 2, 3], [3, 4, 5]]
        assert following.tolist() == [[2, 3, 4], [4, 5, 6]]

    def test_a_folder_is_read_in_order_and_strangers_are_one_code(self, tmp_path: Path) -> None:
        (tmp_path / "2.txt").write_text("é~")
        (tmp_path / "1.txt").write_text("A ")
        seen, following = data.text(tmp_path, window=4).tensors
        assert seen.tolist() == [[ord("A") - 31, 1, 0, 0]]
        assert following[0, -1] == len(data.ALPHABET) - 1

    def test_too_short_and_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(TaskError, match="there is no text"):
            data.text(tmp_path, window=3)
        with pytest.raises(TaskError, match="there is no text"):
            data.text(tmp_path / "none.txt", window=3)
        (tmp_path / "a.txt").write_text("abc")
        with pytest.raises(TaskError, match=r"a\.txt: a text is too short \(got 3, expected over 3"):
            data.text(tmp_path / "a.txt", window=3)


class TestDatasets:
    def test_columns_come_in_the_order_asked_for(self) -> None:
        datasets = pytest.importorskip("datasets", reason="datasets is not installed")
        whole = datasets.Dataset.from_dict(
            {"label": [1, 0, 2], "id": ["a", "b", "c"], "row": [[0.5, 1], [2, 3], [4, 5]]}
        )
        examples = data.Columns(whole, "row", "label")
        assert len(examples) == 3
        rows, labels = next(batches(examples, 3, None))
        assert (rows.tolist(), labels.tolist()) == ([[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]], [1, 0, 2])
        assert isinstance(data.in_memory(examples), TensorDataset)
        with pytest.raises(TaskError, match=r"no such column \(got size, expected label \| id \| row"):
            data.Columns(whole, "size")


def test_in_memory_keeps_values_and_types() -> None:
    rows = TensorDataset(torch.arange(6.0).reshape(3, 2), torch.tensor([2, 1, 0]))
    held = data.in_memory(rows)
    assert torch.equal(held.tensors[0], rows.tensors[0])
    assert np.array_equal(held.tensors[1].numpy(), [2, 1, 0])
