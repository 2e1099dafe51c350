"""Batches: nothing lost, nothing twice, the same order for the same seed, and never a lone example at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fedprune.batches import batches, check_data, examples_in, guarded, split, steps_in_pass
from fedprune.errors import LocalError, TaskError
from fedprune.task import UserCode


class Pairs(Dataset[tuple[Tensor, int]]):
    """Examples that must be read one by one."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return torch.tensor([float(index)]), index


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(7))


def table(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count).float().unsqueeze(1), torch.arange(count))


def order(data: Any, batch_size: int, seed: int | None) -> list[list[int]]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return [labels.tolist() for _, labels in batches(data, batch_size, generator)]


def flat(found: list[list[int]]) -> list[int]:
    return [position for batch in found for position in batch]


@given(count=st.integers(1, 70), batch_size=st.integers(1, 40), seed=st.none() | st.integers(0, 9))
def test_one_pass_holds_every_example_once(count: int, batch_size: int, seed: int | None) -> None:
    found = order(table(count), batch_size, seed)
    assert sorted(flat(found)) == list(range(count))
    assert len(found) == steps_in_pass(table(count), batch_size)
    assert all(len(batch) == batch_size for batch in found[:-1])
    assert batch_size == 1 or count == 1 or len(found[-1]) > 1


def test_the_fast_path_cuts_the_same_batches_as_the_slow_one() -> None:
    assert order(table(33), 8, 4) == order(Pairs(33), 8, 4)
    assert order(split(table(33), 0.3, 5)[0], 8, 4) == order(split(Pairs(33), 0.3, 5)[0], 8, 4)


def test_the_seed_decides_the_order() -> None:
    assert order(table(50), 8, 1) == order(table(50), 8, 1)
    assert order(table(50), 8, 1) != order(table(50), 8, 2)
    assert order(table(5), 8, None) == [[0, 1, 2, 3, 4]]


def test_passes_of_one_generator_differ() -> None:
    generator = torch.Generator().manual_seed(1)
    passes = [[labels.tolist() for _, labels in batches(table(50), 8, generator)] for _ in range(2)]
    assert passes[0] != passes[1]


@pytest.mark.parametrize("data", [table(20), Pairs(20), Stream(), list(range(20))])
def test_no_global_random_number_is_drawn(data: Any) -> None:
    before = torch.get_rng_state()
    list(batches(data, 4, torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_streams_and_ready_batches_pass_as_they_come() -> None:
    assert [b.tolist() for b in batches(Stream(), 3, None)] == [[0, 1, 2], [3, 4, 5], [6]]
    ready = DataLoader(table(6), batch_size=4)
    assert order(ready, 99, None) == [[0, 1, 2, 3], [4, 5]]
    assert steps_in_pass(ready, 99) == 0


@given(count=st.integers(0, 60), share=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_a_split_loses_nothing_and_repeats(count: int, share: float, seed: int) -> None:
    training, apart = split(table(count), share, seed)
    kept = flat(order(training, 8, None)) if len(training) else []
    held = flat(order(apart, 8, None)) if apart is not None else []
    assert sorted(kept + held) == list(range(count))
    assert not count or kept
    assert (apart is None) == (count < 2 or share == 0.0)
    if apart is not None:
        assert abs(len(held) - count * share) <= 1
        assert held == flat(order(split(table(count), share, seed)[1], 8, None))


@given(count=st.integers(2, 60), folds=st.integers(2, 7), seed=st.integers(0, 5))
def test_all_folds_together_hold_out_every_example_once(count: int, folds: int, seed: int) -> None:
    parts = [split(table(count), 1 / folds, seed, fold) for fold in range(folds)]
    for training, apart in parts:
        assert apart is not None
        rows = [flat(order(part, 8, None)) for part in (training, apart)]
        assert sorted(rows[0] + rows[1]) == list(range(count))
        assert all(rows)
    if count >= folds:
        assert sorted(row for _, apart in parts for row in flat(order(apart, 8, None))) == list(range(count))
    assert order(parts[0][1], 8, None) == order(split(table(count), 1 / folds, seed)[1], 8, None)


def test_rows_read_like_the_data_they_come_from() -> None:
    _, apart = split(Pairs(20), 0.2, 1)
    assert apart is not None
    assert sorted(apart[i][1] for i in range(len(apart))) == [apart[i][1] for i in range(4)]


def test_ready_batches_cannot_be_split() -> None:
    loader = DataLoader(table(6))
    assert split(loader, 0.5, 1) == (loader, None)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(LocalError, match="held_out is no share"):
        split(table(6), share, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "`train_data` returns no examples"),
        (TensorDataset(torch.zeros(0, 3)), "`train_data` returns no examples"),
        (None, r"`train_data` returns no data \(got NoneType"),
        (iter([1, 2]), "`train_data` returns data that can be read only once"),
    ],
)
def test_data_that_cannot_be_used_names_the_function(data: object, message: str) -> None:
    with pytest.raises(TaskError, match=f"task.py: {message}"):
        check_data(data, function="train_data", party="task.py")


@pytest.mark.parametrize("data", [table(1), Stream(), DataLoader(table(3)), [1, 2]])
def test_usable_data_passes_and_can_be_read_twice(data: object) -> None:
    check_data(data, function="train_data", party="task.py")
    first, again = (len(list(batches(data, 2, None))) for _ in range(2))
    assert first == again > 0


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(4, 2), torch.zeros(4)), 4),
        ({"text": "a", "ids": torch.zeros(3, 9)}, 3),
        ([{"x": torch.zeros(2)}, 1], 2),
        (torch.tensor(1.0), 1),
        ("text", 1),
        ((), 1),
    ],
)
def test_examples_are_counted_by_the_first_tensor(batch: Any, count: int) -> None:
    assert examples_in(batch) == count


def test_what_the_dataset_raises_names_where_it_was_read(tmp_path: Path) -> None:
    class Broken(Pairs):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            raise KeyError("no such file")

    with pytest.raises(TaskError, match=r"reading `train_data` failed at test_batches.py line \d+: KeyError"):
        list(guarded(batches(Broken(3), 2, None), UserCode(tmp_path / "task.py", "reading `train_data`")))
