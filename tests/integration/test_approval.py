"""Pruning on approval over real sockets: steps are judged by what clients hold out, and undone to the byte.

What clients find is bent at their link where a test needs a verdict; everything else is as it is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from safetensors.numpy import load_file

from fedprune.config import RunConfig
from fedprune.errors import ConfigError, StoreError
from fedprune.report import RoundReport
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_client.distilling import Teacher
from fedprune_client.transport import Link
from fedprune_server.store import verify

from .federation import Federation, run_file, task_file, until

# One step, from everything to a tenth, on approval.
STEP = (
    "run.rounds=9",
    "pruning.density=0.3",
    "pruning.schedule='staged'",
    "pruning.stages=[[0.2, 0.3]]",
    "pruning.start=0.2",
    "pruning.floor=4",
    "pruning.max_accuracy_drop=0.05",
    "pruning.recovery=1",
    "training.held_out=0.3",
)
LOSSY = ("compression.up='int8'", "compression.down='int8'", "compression.top=0.5")
Arrays = dict[str, Any]


class Bench:
    """A federation whose clients find what `accuracy(version)` says, and what its clients held when."""

    def __init__(self, folder: Path, accuracy: Callable[[Version], float], config: RunConfig, **task: Any) -> None:
        path = folder / "task.py" if (folder / "task.py").exists() else task_file(folder, **task)
        self.federation = Federation(folder, path, [config])
        self.accuracy = accuracy
        self.held: dict[tuple[int, int], Arrays] = {}
        self.epochs: dict[int, int] = {}
        self.cohorts: dict[int, set[str]] = {}

    def link(self, server: str, name: str, say: Callable[[str], None]) -> Link:
        bench = self

        class Bent(Link):
            async def submit(self, begin: pb.Begin, frame: Any, *, chunk_bytes: int) -> pb.Receipt:
                site = next(site for site in bench.federation.sites if site.name == name)
                replica = site.runner._replica
                version = (begin.version.model, begin.version.mask)
                # Results that an earlier process sealed go out before there is a replica.
                if replica is not None and replica.mask is not None:
                    bits = {f"mask of {n}": b.copy() for n, b in replica.mask.alive.items()}
                    bench.held.setdefault(version, {n: a.copy() for n, a in replica.weights.items()} | bits)
                if "accuracy" in begin.metrics and not begin.size:
                    begin.metrics["accuracy"] = bench.accuracy(Version(model=version[0], mask=version[1]))
                    bench.cohorts.setdefault(begin.version.model, set()).add(name)
                doing = site.runner.state.assignment
                if doing is not None and begin.size:
                    bench.epochs[doing.round] = doing.plan.residual_epoch
                return await super().submit(begin, frame, chunk_bytes=chunk_bytes)

        return Bent(server, name, say=say)

    async def run(self) -> list[RoundReport]:
        assert await self.federation.run(link=self.link), self.federation.said
        return self.federation.rounds

    @property
    def said(self) -> list[str]:
        return [line for site in self.federation.sites for line in site.said]


def same_bytes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[n].tobytes() == other[n].tobytes() for n in one)


async def test_a_step_that_costs_nothing_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda version: 0.9, run_file(*STEP))
    rows = await bench.run()
    (trial,) = (row.trial for row in rows if row.trial)
    assert (trial.decision, trial.density_before, trial.drop, trial.pairs) == ("accepted", 1.0, 0.0, 3)
    # Measured after round 1, tried with round 2, trained for round 3, judged then.
    assert [row.round for row in rows if row.trial] == [3]
    assert [row.density for row in rows[:2]] == [1.0, pytest.approx(0.3, abs=0.01)]
    assert rows[-1].density == rows[1].density
    assert bench.federation.report.pruning_outcome.endswith("accepted: the target is reached")


@pytest.mark.parametrize("lossy", [(), LOSSY])
async def test_while_a_step_recovers_clients_learn_from_the_model_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lossy: tuple[str, ...]
) -> None:
    """From what they held before the mask changed, to the byte, and without another byte on the wire."""
    taught: list[Arrays] = []
    make = Teacher.of

    def watched(student: Any, schema: Any, weights: Arrays, **more: Any) -> Teacher:
        taught.append({name: a.copy() for name, a in weights.items()})
        return make(student, schema, weights, **more)

    monkeypatch.setattr(Teacher, "of", watched)
    keys = (*STEP, *lossy, "pruning.distill=0.5", "pruning.recovery=2")
    bench = Bench(tmp_path, lambda version: 0.9, run_file(*keys))
    rows = await bench.run()
    assert [row.trial.decision for row in rows if row.trial] == ["accepted"]
    # Proposed with round 2; two rounds of three clients recover.
    assert len(taught) == 6
    before = bench.held[1, 0]
    assert all(weights[name].tobytes() == before[name].tobytes() for weights in taught for name in weights)


async def test_a_task_with_a_loop_of_its_own_cannot_be_distilled(tmp_path: Path) -> None:
    task = task_file(tmp_path, more="def train(model, data, ctx):\n    return 1\n")
    with pytest.raises(ConfigError, match="a `train` of its own"):
        await Federation(tmp_path, task, [run_file(*STEP, "pruning.distill=0.5")]).run()


@pytest.mark.parametrize("lossy", [(), LOSSY])
async def test_a_step_that_costs_too_much_is_undone_to_the_byte(tmp_path: Path, lossy: tuple[str, ...]) -> None:
    """Weights, those that were pruned included, and mask come back under new versions; residuals do not."""
    bench = Bench(tmp_path, lambda version: 0.9 if version.mask in (0, 2) else 0.4, run_file(*STEP, *lossy))
    rows = await bench.run()
    first = next(row for row in rows if row.trial)
    assert first.trial is not None
    assert first.trial.decision == "rejected"
    assert first.trial.drop == pytest.approx(0.5)
    # Proposed with round 2, whose version is 2; undone after round 3, as version 4 with mask 2.
    assert (first.model_version, first.mask_version, first.density) == (4, 2, 1.0)
    # The report's layers are those of the mask in force.
    assert all(layer.alive == layer.size for layer in first.layers)
    assert sum(layer.grown for layer in first.layers) == sum(l.size - l.alive for l in rows[1].layers) > 0
    assert same_bytes(bench.held[4, 2], bench.held[1, 0])
    assert not same_bytes(bench.held[4, 2], bench.held[2, 1])
    # Half the step comes next, from the same place; nobody uses a version twice.
    versions = [row.model_version for row in rows]
    assert sorted(set(versions)) == versions
    assert rows[3].density == pytest.approx(0.65, abs=0.01)
    assert verify(tmp_path / "runs" / "run").problems == ()
    if lossy:
        assert [bench.epochs[n] for n in (1, 2, 3, 4)] == [0, 0, 0, 1]
        assert sum("the model was rolled back" in line for line in bench.said) >= 3


async def test_after_three_rejections_the_mask_is_left_alone_and_it_is_said(tmp_path: Path) -> None:
    keys = (*STEP, "run.rounds=14")
    bench = Bench(tmp_path, lambda version: 0.9 if version.mask % 2 == 0 else 0.4, run_file(*keys))
    rows = await bench.run()
    tried = [row.trial.density_tried for row in rows if row.trial]
    assert tried == pytest.approx([0.3, 0.65, 0.825], abs=0.01)
    report = bench.federation.report
    assert report.final.density == 1.0
    assert report.pruning_outcome == "nothing could be pruned: 3 steps in a row were rejected"


async def test_everyone_judges_also_where_few_train(tmp_path: Path) -> None:
    keys = (*STEP, "clients.share=0.3", "run.evaluate_every=0")
    bench = Bench(tmp_path, lambda version: 0.9, run_file(*keys))
    rows = await bench.run()
    assert [row.clients_asked for row in rows] == [1] * 9
    # The baseline of round 1 and the verdict of round 3.
    assert {model: len(names) for model, names in bench.cohorts.items()} == {1: 3, 3: 3}
    # The coordinator has test data: what clients hold out decides, and is not shown as the accuracy.
    assert [row.accuracy is None for row in rows] == [True] * 8 + [False]
    assert [row.trial.pairs for row in rows if row.trial] == [3]


async def ask_to_stop(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = rpc.CoordinatorStub(channel)
        await stub.Stop(pb.StopRequest(reason="enough"), metadata=(("fedprune-identity", "operator"),))


async def test_a_run_that_is_stopped_ends_with_what_was_approved(tmp_path: Path) -> None:
    keys = (*STEP, "pruning.recovery=2", "run.rounds=12")
    bench = Bench(tmp_path, lambda version: 0.9, run_file(*keys))
    federation = bench.federation

    def stop(config: RunConfig, row: RoundReport) -> None:
        federation.rounds.append(row)
        if row.round == 3:
            stopping.append(asyncio.create_task(ask_to_stop(federation.address)))

    def until_it_is_stopped(server: str, name: str, say: Callable[[str], None]) -> Link:
        """What is made of the version that the stop is for never leaves: else the step could be judged before."""
        link = bench.link(server, name, say)
        submit = link.submit

        async def held(begin: pb.Begin, frame: Any, *, chunk_bytes: int) -> pb.Receipt:
            if begin.version.model >= 3:
                await asyncio.Event().wait()
            return await submit(begin, frame, chunk_bytes=chunk_bytes)

        link.submit = held  # type: ignore[method-assign]  # this one's
        return link

    stopping: list[asyncio.Task[None]] = []
    federation.server.watch = stop
    assert not await federation.run(link=until_it_is_stopped)
    await stopping[0]
    report = federation.report
    assert report.outcome == "stopped"
    assert report.final.density == 1.0
    last = report.rounds[-1]
    assert last.trial is not None
    assert last.trial.decision == "abandoned"
    assert last.accuracy == report.rounds[1].accuracy
    model = load_file(tmp_path / "runs" / "run" / "model.safetensors")
    assert same_bytes(model, {n: a for n, a in bench.held[2, 0].items() if not n.startswith("mask of")})
    assert report.pruning_outcome == "nothing could be pruned: the run ended before the last trial was judged"


def final_model(folder: Path) -> Arrays:
    return dict(load_file(folder / "runs" / "run" / "model.safetensors"))


@pytest.mark.parametrize("receipts", [4, 8, 13, 15, 17, 19, 24])
async def test_a_run_that_is_cut_off_while_it_recovers_ends_with_the_same_model(tmp_path: Path, receipts: int) -> None:
    """In training, in recovery, in the middle of a verdict: coordinator and clients are gone, and come back."""

    def found(version: Version) -> float:
        return 0.9 if version.mask in (0, 2) else 0.4

    config = run_file(*STEP, *LOSSY)
    whole = Bench(tmp_path / "whole", found, config)
    rows = await whole.run()
    cut = Bench(tmp_path / "cut", found, config)
    federation, seen = cut.federation, list[str]()
    federation.server.failpoint = seen.append
    async with federation.serving() as serving:
        for name in "abc":
            site = federation.start(name, link=cut.link)
            await until(lambda: any(s.startswith("joined") for s in site.said), serving)  # noqa: B023  # awaited here
        await until(lambda: seen.count("receipt-sent") >= receipts, serving)
        federation.server._suspended.set()
        await serving
    assert not federation.reports
    again = Bench(tmp_path / "cut", found, config)
    await again.run()
    assert same_bytes(final_model(tmp_path / "whole"), final_model(tmp_path / "cut"))
    ours, theirs = again.federation.report.rounds, rows
    assert [(r.model_version, r.mask_version, r.trial) for r in ours] == [
        (r.model_version, r.mask_version, r.trial) for r in theirs
    ]


@pytest.mark.parametrize(("point", "count"), [("evaluation-closed", 2), ("version-adopted", 4), ("round-published", 3)])
async def test_a_coordinator_that_breaks_in_the_middle_of_a_verdict_comes_to_the_same(
    tmp_path: Path, point: str, count: int
) -> None:
    def found(version: Version) -> float:
        return 0.9 if version.mask in (0, 2) else 0.4

    config = run_file(*STEP)
    whole = Bench(tmp_path / "whole", found, config)
    await whole.run()
    broken = Bench(tmp_path / "cut", found, config)
    reached: list[str] = []

    def fall(name: str) -> None:
        reached.append(name)
        if name == point and reached.count(name) == count:
            raise StoreError("the disk is gone")

    broken.federation.server.failpoint = fall
    with pytest.raises(StoreError, match="the disk is gone"):
        await broken.federation.run(link=broken.link)
    again = Bench(tmp_path / "cut", found, config)
    rows = await again.run()
    assert same_bytes(final_model(tmp_path / "whole"), final_model(tmp_path / "cut"))
    report = again.federation.report
    assert [r.trial for r in report.rounds] == [r.trial for r in whole.federation.report.rounds]
    lines = (tmp_path / "cut" / "runs" / "run" / "rounds.jsonl").read_text().splitlines()
    assert [RoundReport.from_json(line) for line in lines] == list(report.rounds)
    assert rows


async def test_a_task_that_measures_no_accuracy_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda version: 0.9, run_file(*STEP), more="del metrics")
    assert not await bench.federation.run(link=bench.link)
    assert "the task's `metrics` gives none" in bench.federation.server.outcomes[0].reason


async def test_a_budget_of_bytes_is_kept_on_the_wire_and_said(tmp_path: Path) -> None:
    keys = ("pruning.budget={bytes=1500}", "pruning.schedule='init'", "compression.up='int8'", "pruning.floor=4")
    model = "\ndef model():\n    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))\n"
    federation = Federation(tmp_path, task_file(tmp_path, model=model), [run_file(*keys)])
    assert await federation.run()
    assert federation.report.final.density < 0.5
    assert all(row.payload.up <= 3 * 1500 for row in federation.rounds)
    assert any(said.startswith("budget: 1500 bytes a round and direction") for said in federation.said)


async def test_a_budget_of_flops_is_met(tmp_path: Path) -> None:
    keys = ("pruning.budget={flops=700}", "pruning.schedule='init'", "pruning.floor=4")
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*keys)])
    assert await federation.run()
    # 6 x 24 + 24 x 16 + 16 x 3 multiply-adds dense, and the last 48 are the classifier's: 350 are left.
    alive = sum(layer.alive for layer in federation.rounds[0].layers)
    assert 0.9 * (350 - 48) <= alive <= 350 - 48
