"""Runs as users have them: other models, fewer clients, clients that come early, and several runs in turn."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.ledger import Kind
from fedprune.report import read_document
from fedprune.task import load_task
from fedprune.torch import build_model, signature, to_arrays
from fedprune_lab.ports import Ports
from fedprune_server import incoming
from fedprune_server.aggregation.aggregators import Composed
from fedprune_server.plan import derive_seed
from fedprune_server.serve import Server
from fedprune_server.store import VersionRecord
from fedprune_server.store.rowstore import RowStore
from fedprune_server.workshop import Workshop

from .federation import DATA, Federation, run_file, task_file, until

BATCH_NORM = """
def model():
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.Linear(16, 3))
"""
TIED = """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 12, bias=False)
        self.decode = nn.Linear(6, 12, bias=False)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.relu(self.encode(x) + self.decode(x)))

def model():
    return Tied()
"""
FROZEN = """
def model():
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.Linear(16, 3))
    nn.init.constant_(net[0].weight, 0.125)
    net[0].weight.requires_grad = False
    return net
"""


def model_of(folder: Path, run: str = "run") -> dict[str, np.ndarray]:
    return load_file(folder / "runs" / run / "model.safetensors")


async def test_integer_buffers_without_a_shape_simply_work(tmp_path: Path) -> None:
    federation = Federation(
        tmp_path, task_file(tmp_path, model=BATCH_NORM), [run_file("pruning.density=0.5", "pruning.every=1")]
    )
    assert await federation.run()
    model = model_of(tmp_path)
    steps = model["1.num_batches_tracked"]
    assert steps.shape == ()
    assert steps.dtype == np.int64
    # Counters are copied from the furthest client: three rounds of four batches on the largest.
    assert steps == 3 * 4
    assert np.all(model["1.running_var"] > 0)
    assert not np.allclose(model["1.running_mean"], 0)


async def test_tied_weights_travel_once_and_stay_tied(tmp_path: Path) -> None:
    task = task_file(tmp_path, model=TIED)
    federation = Federation(tmp_path, task, [run_file()])
    assert await federation.run()
    assert set(model_of(tmp_path)) == {"encode.weight", "head.weight", "head.bias"}
    assert federation.report.parameters == 6 * 12 + 12 * 3 + 3


async def test_what_is_frozen_neither_travels_nor_changes(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path, model=FROZEN), [run_file()])
    assert await federation.run()
    assert "0.weight" not in model_of(tmp_path)
    assert federation.report.parameters == 24 + 24 * 16 + 16 + 16 * 3 + 3


async def test_a_run_starts_from_a_pretrained_model(tmp_path: Path) -> None:
    task = task_file(tmp_path, model=BATCH_NORM)
    model = build_model(load_task(task), seed=77)
    save_file(to_arrays(model, signature(model)), tmp_path / "start.safetensors")
    # It may have buffers of every shape. With a step of next to nothing the end is the beginning.
    config = run_file("run.rounds=1", "training.learning_rate=1e-30", f"run.init='{tmp_path / 'start.safetensors'}'")
    federation = Federation(tmp_path, task, [config])
    assert await federation.run()
    found = model_of(tmp_path)
    for name, parameter in model.named_parameters():
        assert np.array_equal(found[name], parameter.detach().numpy())
    model.load_state_dict({name: torch.from_numpy(array) for name, array in found.items()})


def test_a_pretrained_model_that_does_not_fit_is_refused_before_anyone_waits(tmp_path: Path) -> None:
    save_file({"0.weight": np.zeros((2, 2), np.float32)}, tmp_path / "other.safetensors")
    config = run_file(f"run.init='{tmp_path / 'other.safetensors'}'")
    server = Federation(tmp_path, task_file(tmp_path), [config]).server
    with pytest.raises(
        ConfigError, match=r"other.safetensors: \[run\] init does not fit .* '0.weight' .*expected float32"
    ):
        server.check()


async def test_clients_may_come_before_the_coordinator(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file("run.rounds=1")])
    with Ports() as ports:
        address = f"127.0.0.1:{ports.take()}"
        early = [federation.start(name, address=address) for name in "abc"]
        await until(lambda: all(site.said for site in early))
        assert all("joining: " in site.said[0] and "again in" in site.said[0] for site in early)
        federation.server.address = address
        async with federation.serving() as serving:
            assert await federation.end(serving)


async def test_a_share_of_the_clients_works_in_each_round(tmp_path: Path) -> None:
    config = run_file("run.rounds=6", "clients.share=0.5", "clients.expect=4")
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run("abcd")
    assert [(r.clients_asked, r.clients_counted) for r in federation.rounds] == [(2, 2)] * 6
    # A client that sat out a round is brought up to date by the steps it missed, or by a snapshot.
    assert len({r.examples for r in federation.rounds}) > 1


async def test_without_test_data_the_clients_evaluate_what_they_held_out(tmp_path: Path) -> None:
    task = task_file(tmp_path, test_data="")
    federation = Federation(tmp_path, task, [run_file("run.rounds=4", "training.held_out=0.25")])
    assert await federation.run()
    assert federation.report.accuracy_source == "clients' held-out share"
    assert [r.round for r in federation.rounds] == [1, 2, 3, 4]
    assert all(r.accuracy is not None and 0 <= r.accuracy <= 1 for r in federation.rounds)
    assert federation.report.final.accuracy == federation.rounds[-1].accuracy
    assert federation.report.flops is None
    assert "no `test_data()`" in (federation.report.flops_unavailable or "")


async def test_two_runs_in_turn_with_the_same_clients(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    dense = run_file("run.name='dense'", "run.rounds=6")
    pruned = run_file("run.name='pruned'", "run.rounds=6", "pruning.density=0.25", "pruning.every=2", "pruning.floor=4")
    federation = Federation(tmp_path, task, [dense, pruned])
    assert await federation.run()
    assert [r.name for r in federation.reports] == ["dense", "pruned"]
    assert [r.final.density for r in federation.reports] == [1.0, pytest.approx(0.25, abs=0.03)]
    assert all(site.task is not None and site.task.done() for site in federation.sites)
    # Both began with the same weights: the second run remembers nothing of the first.
    assert derive_seed(dense.run.seed, "batches", 1, 0) == derive_seed(pruned.run.seed, "batches", 1, 0)
    assert federation.reports[0].rounds[0].accuracy == federation.reports[1].rounds[0].accuracy


async def test_a_run_in_which_no_update_counts_fails(tmp_path: Path) -> None:
    unlucky = task_file(
        tmp_path / "unlucky", more="def train(model, data, ctx):\n    raise ValueError('no such column')"
    )
    federation = Federation(tmp_path, unlucky, [run_file("run.rounds=5")])
    assert not await federation.run()
    assert [end.outcome for end in federation.server.outcomes] == ["failed"]
    reason = federation.server.outcomes[0].reason
    assert reason.startswith("3 rounds in a row counted no update")
    assert "no such column" in reason
    assert (tmp_path / "runs" / "run" / "report.json").exists()
    assert federation.report.outcome == "failed"


async def test_a_client_whose_data_cannot_be_read_goes_home_and_the_run_goes_on(tmp_path: Path) -> None:
    """It says why, and the others train without it."""
    bad = DATA.replace("    return _rows(100", "    assert shard.index != 1, 'no scans here'\n    return _rows(100")
    federation = Federation(tmp_path, task_file(tmp_path, data=bad), [run_file("clients.grace_s=0.2")])
    async with federation.serving() as serving:
        for name in "abc":
            site = federation.start(name)
            await until(lambda: any(s.startswith("joined") for s in site.said))  # noqa: B023  # awaited here
        assert await serving
    assert [r.clients_counted for r in federation.rounds] == [2, 2, 2]
    with pytest.raises(Exception, match="no scans here"):
        await federation.sites[1].end()


async def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    config = run_file("run.rounds=4", "pruning.density=0.5", "pruning.every=2", "pruning.start=0.0", "pruning.end=0.5")
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run()
    folder = tmp_path / "runs" / "run"
    (report,) = read_document((folder / "report.json").read_text(), name="report.json")
    assert report.outcome == "finished"
    assert report.flops is not None
    first, second, last = 6 * 24, 24 * 16, 16 * 3
    assert report.flops.dense == 2 * (first + second + last)
    # The last layer is not pruned by itself.
    assert report.flops.left == pytest.approx(2 * ((first + second) * report.final.density + last))
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4]
    assert (folder / "config.toml").read_text() == config.to_toml()
    assert {p.name for p in (folder / "masks").iterdir()} >= {"v0.mask", "v1.mask"}
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {event.get("round") for event in events} >= {1, 2, 3, 4}
    assert {event["client"] for event in events if event["event"].startswith("train accepted")} == {0, 1, 2}
    ledger = (folder / "ledger.csv").read_text().splitlines()
    assert ledger[0] == "client,round,direction,kind,bytes"
    assert {Kind.MASK.value, Kind.VALUES.value, Kind.CONTROL.value} <= {line.split(",")[3] for line in ledger}


async def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    """Two coordinators on one port: the second says what to do."""
    first = Federation(tmp_path / "1", task_file(tmp_path), [run_file()])
    async with first.serving():
        second: Server = Federation(tmp_path / "2", task_file(tmp_path), [run_file()]).server
        second.address = first.address
        with pytest.raises(ConfigError, match=rf"port is in use.*got {first.address}.*another --address"):
            await second.run()


async def test_a_compressor_that_did_not_act_is_reported(tmp_path: Path) -> None:
    """On a model this small the frames' own words weigh more than int8 saves; what is dense is not blamed."""
    tiny = "def model():\n    return nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 3))\n"
    task = task_file(tmp_path, model=tiny)
    dense, small = run_file("run.name='dense'"), run_file("run.name='small'", "compression.up='int8'")
    federation = Federation(tmp_path, task, [dense, small])
    assert await federation.run()
    without, with_plan = federation.reports
    assert without.warnings == ()
    assert len(with_plan.warnings) == 3
    assert all("compression up did not act: " in w and "in spite of int8 values" in w for w in with_plan.warnings)


async def test_one_that_acts_is_not(tmp_path: Path) -> None:
    wide = (
        "def model():\n    return nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 60), nn.Linear(60, 3))\n"
    )
    task = task_file(tmp_path, model=wide)
    pruned = run_file("run.rounds=6", "pruning.density=0.3", "pruning.every=1", "compression.up='int8'")
    federation = Federation(tmp_path, task, [pruned])
    assert await federation.run()
    assert federation.report.warnings == ()
    assert federation.report.final.density < 0.4


async def test_a_run_that_was_over_when_its_coordinator_was_killed_is_not_begun_again_by_whoever_restarts_it(
    tmp_path: Path,
) -> None:
    """A supervisor repeats the command of a process that was killed; a person who repeats it after a good end means it."""
    federation = Federation(tmp_path, task_file(tmp_path), [run_file()])
    assert await federation.run()
    (tmp_path / "runs" / "run" / "state" / "state.seal").unlink()
    restarted = Federation(tmp_path, tmp_path / "task.py", [run_file()])
    assert await restarted.run("")
    assert any("nothing is left to do" in text for text in restarted.said)
    assert not (tmp_path / "runs" / "run-2").exists()
    again = Federation(tmp_path, tmp_path / "task.py", [run_file()])
    assert await again.run()
    assert (tmp_path / "runs" / "run-2" / "report.json").exists()


async def test_a_version_is_synced_unless_everyone_has_a_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has none could still bring another update after a power cut, and the same version would come out otherwise."""
    synced: dict[int, bool] = {}
    commit = RowStore.commit_version

    def noted(store: RowStore, record: VersionRecord, **options: Any) -> None:
        synced[record.round] = options.get("synced", True)
        commit(store, record, **options)

    monkeypatch.setattr(RowStore, "commit_version", noted)
    assert await Federation(tmp_path / "all", task_file(tmp_path), [run_file("run.rounds=2")]).run()
    assert synced == {0: True, 1: False, 2: False}
    one_fails = DATA.replace("torch.randn", "(float('nan') if seed == 102 else 1.0) * torch.randn")
    federation = Federation(
        tmp_path / "two", task_file(tmp_path / "two", data=one_fails), [run_file("run.rounds=2", "clients.quorum=0.5")]
    )
    assert await federation.run()
    assert [row.clients_counted for row in federation.rounds] == [2, 2]
    assert synced == {0: True, 1: True, 2: True}


async def test_what_is_summed_while_it_comes_in_is_the_model_that_folding_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = 0
    fold = Composed.fold

    def counted(*args: Any) -> Any:
        nonlocal folds
        folds += 1
        return fold(*args)

    monkeypatch.setattr(Composed, "fold", counted)
    config = run_file("pruning.density=0.5", "pruning.every=1", "pruning.reestimate=false")
    assert await Federation(tmp_path / "summed", task_file(tmp_path, model=BATCH_NORM), [config]).run()
    assert folds == 0
    monkeypatch.setattr(incoming, "begin", lambda *args: None)
    assert await Federation(tmp_path / "folded", task_file(tmp_path, model=BATCH_NORM), [config]).run()
    assert folds == 3
    summed, folded = model_of(tmp_path / "summed"), model_of(tmp_path / "folded")
    assert all(np.array_equal(summed[name], folded[name]) for name in folded)


async def test_a_first_model_that_was_drawn_otherwise_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What clients compare theirs with is what the run begins with, even where two draws of one seed differ."""
    draw, draws = Workshop.first_arrays, count(1)
    begun = 2  # the first draw is the check before the run

    def otherwise(workshop: Workshop, config: RunConfig) -> dict[str, Any]:
        off = 1 if next(draws) == begun else 0
        return {name: np.add(array, off).astype(array.dtype) for name, array in draw(workshop, config).items()}

    monkeypatch.setattr(Workshop, "first_arrays", otherwise)
    federation = Federation(tmp_path, task_file(tmp_path), [run_file("run.rounds=1")])
    assert await federation.run()
    assert [row.clients_counted for row in federation.rounds] == [3]
