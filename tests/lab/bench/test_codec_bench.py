"""The codec bench on a net of a few hundred weights: every row it promises, and bounds that are bounds."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedprune.codec import encode_update
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_lab.bench import bounds, codec, nets, plotting, workloads
from fedprune_lab.bench.measuring import Row, Stopwatch, table, write_csv


def tiny(seed: int) -> nets.Net:
    torch.manual_seed(seed)

    def draw(client: int, rng: np.random.Generator) -> nets.Batch:
        labels = rng.integers(0, 3, 8)
        return torch.from_numpy(rng.normal(labels[:, None], 1, (8, 20)).astype(np.float32)), torch.from_numpy(labels)

    model = nn.Sequential(nn.Linear(20, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
    return nets.Net(name="tiny", model=model, draw=draw, steps=20, client_steps=4)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> workloads.Workload:
    folder = tmp_path_factory.mktemp("workloads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(nets.NETS, "tiny", tiny)
        first = workloads.load("tiny", folder)
        again = workloads.load("tiny", folder)
    assert again.rounds[0.1].mask.fingerprint == first.rounds[0.1].mask.fingerprint, "what was trained is kept"
    return again


def test_workloads_are_masked_rounds_of_one_net(work: workloads.Workload) -> None:
    roles = {spec.name: spec.role for spec in work.schema}
    assert (roles["0.weight"], roles["0.bias"]) == (Role.PRUNABLE, Role.FREE)
    assert (roles["1.running_mean"], roles["1.num_batches_tracked"]) == (Role.BUFFER, Role.COUNTER)
    for density, turn in work.rounds.items():
        assert turn.mask.density == pytest.approx(density, abs=0.01)
        for name, alive in turn.mask.alive.items():
            assert not np.any(turn.local[name][~alive])
        assert any(np.any(turn.local[name] != turn.base[name]) for name in turn.local)
    assert work.regrown.alive_count == work.rounds[0.1].mask.alive_count


def test_every_promised_row_is_there(work: workloads.Workload) -> None:
    watch = Stopwatch(1)
    rows = [*codec.baselines(work), *codec.masks(work, watch), *codec.moved(work), *codec.channels(work)]
    rows += [*codec.top(work, watch), *codec.updates(work, watch)]
    assert {row.what for row in rows} == {
        "baseline", "mask", "mask drift", "mask regrown", "mask of channels", "places of top-k",
        "update", "weights", "weights + places",
    }  # fmt: skip
    assert {row.coding for row in rows if row.what == "update"} == {"lossless", *codec.LOSSY}
    assert all(row.error is not None and row.error < 0.05 for row in rows if row.coding in ("int8", "bf16"))
    assert len(list(table(rows))) == len(rows) + 1


def test_rows_become_a_csv_and_a_picture(tmp_path: Path) -> None:
    rows = [
        Row(net="n", what="mask", density=0.1, coding="chosen", size=10, times_smaller=4.0, over_bound=1.01),
        Row(net="n", what="update", density=0.1, coding="int8", size=10, times_smaller=4.0),
    ]
    write_csv(rows, tmp_path / "deep" / "rows.csv")
    lines = (tmp_path / "deep" / "rows.csv").read_text().splitlines()
    assert lines[0].startswith("net,what,density,coding,size")
    assert len(lines) == 3
    pytest.importorskip("matplotlib")
    assert "rows.png" in plotting.plot(rows, tmp_path / "rows.png")
    assert (tmp_path / "rows.png").stat().st_size > 1000


def test_without_matplotlib_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Mapping[str, object] | Sequence[str] | int | None) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "pip install matplotlib" in plotting.plot([], tmp_path / "x.png")


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_symbols_are_within_two_percent_of_their_entropy(values: str) -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(30_000,)),))
    sent = {"w": np.random.default_rng(0).normal(size=30_000).astype(np.float32)}
    over = bounds.symbols_over_entropy(encode_update(sent, schema=schema, plan=values))
    assert over is not None
    assert 0.97 < over < 1.02


def test_small_segments_have_no_bound() -> None:
    schema = Schema(tensors=(TensorSpec(name="w", shape=(3000,)),))
    sent = {"w": np.random.default_rng(0).normal(size=3000).astype(np.float32)}
    assert bounds.symbols_over_entropy(encode_update(sent, schema=schema, plan="int8")) is None


def test_the_nets_have_the_sizes_they_claim() -> None:
    sizes = {"digits_mlp": 67_914, "lstm2": 5_216_208}
    for name, size in sizes.items():
        schema = workloads.schema_of(nets.NETS[name](1).model)
        assert schema.parameters == size
