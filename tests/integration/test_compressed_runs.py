"""Compressed runs over real sockets: nothing is lost on the way, what cannot be done is said, and it learns.

A client dies between seal and receipt, receipts are lost, and in the end what was sent and what is left add up to
what was learned. The wire's own bytes are held down too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune.errors import LocalError, UnavailableError
from fedprune.feedback import Compressed, Memory, compress
from fedprune.framing import Chunks
from fedprune.mask import Mask
from fedprune.tensor import Schema
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import UploadPlan
from fedprune_client import encoding, patience
from fedprune_client.residual import ResidualFile
from fedprune_client.transport import Link
from fedprune_server import plan
from fedprune_server.serve import Server

from .federation import MODEL, Federation, MakeLink, run_file, task_file

TERNARY = ('compression.up="ternary"', 'compression.down="ternary"', "compression.top=0.05")
MLP = """
def model():
    return nn.Sequential(nn.Linear(40, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
"""
MLP_DATA = """
def _rows(seed, count):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 40, generator=g)
    return TensorDataset(x, (x[:, :10] + x[:, 10:20]).argmax(1))

def train_data(shard):
    return _rows(100 + shard.index, 64)
"""

Sum = dict[str, NDArray[np.float64]]


class Killed(Exception):  # an end, not an error of ours
    """The process is gone."""


class DiesBefore(Link):
    """A client that is killed when its second result is sealed and nothing of it has left."""

    results = 0

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        self.results += 1
        if self.results == 2:
            raise Killed
        return await super().submit(begin, frame, chunk_bytes=chunk_bytes)


class DiesAfter(DiesBefore):
    """A client that is killed when its second result counts, and it has not heard."""

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        receipt = await Link.submit(self, begin, frame, chunk_bytes=chunk_bytes)
        self.results += 1
        if self.results == 2:
            raise Killed
        return receipt


class LosesReceipts(Link):
    """A client that hears of each of its results only when it asks again."""

    unheard = True

    async def _submit_small(self, begin: pb.Begin, frame: bytes) -> pb.Receipt | None:
        await super()._submit_small(begin, frame)
        return None

    async def _submit_once(self, begin: pb.Begin, pieces: Callable[..., Chunks], answer_s: float) -> pb.Receipt:
        receipt = await super()._submit_once(begin, pieces, answer_s)
        self.unheard = not self.unheard
        if not self.unheard:
            raise UnavailableError("the receipt was lost", party=self.server)
        return receipt


def linked(kind: type[Link]) -> MakeLink:
    return lambda server, identity, say: kind(server, identity, say=say)


class Watch:
    """Sums up, for the one client of a run, what it learned, what it sealed and what masks took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wanted: Sum = {}
        self.sealed: Sum = {}
        self.masked: Sum = {}
        self.updates = 0
        self._load = ResidualFile.load
        monkeypatch.setattr(encoding, "compress", self._compress)
        monkeypatch.setattr(ResidualFile, "load", lambda *args, **keys: self._loads(*args, **keys))

    def _loads(self, file: ResidualFile, schema: Schema, mask: Mask, **keys: Any) -> Memory:
        """Nobody is ever away here, so what is missing after loading is what the mask took: all that is pruned, and
        nothing that is alive."""
        found = file._read(file._path("now"))
        memory = self._load(file, schema, mask, **keys)
        for name, before in found[0].residual.items() if found else ():
            taken = before.astype(np.float64) - memory.residual[name]
            alive = mask.alive.get(name, np.ones(taken.shape, np.bool_))
            assert not taken[alive].any()
            assert not memory.residual[name][~alive].any()
            self.masked[name] = self.masked.get(name, 0.0) + taken
        return memory

    def _compress(self, change: dict[str, NDArray[Any]], memory: Memory, **rest: Any) -> Compressed:
        made = compress(change, memory, **rest)
        self.updates += 1
        for name in made.after.residual:
            self.wanted[name] = self.wanted.get(name, 0.0) + change[name].astype(np.float64)
            self.sealed[name] = self.sealed.get(name, 0.0) + made.sent[name].astype(np.float64)
        return made

    def assert_conserved(self, federation: Federation, name: str) -> None:
        """The run may end before the receipt of the last update is heard; then its outcome still lies staged."""
        residual, last = federation.site(name).runner.residual, len(federation.rounds)
        left = residual._read(residual._path(f"{last}-after")) or residual._read(residual._path("now"))
        assert left is not None
        assert left[1].round == last
        assert self.updates == len(federation.rounds), "nothing was trained twice"
        for tensor, wanted in self.wanted.items():
            arrived = self.sealed[tensor] + left[0].residual[tensor] + self.masked.get(tensor, 0.0)
            np.testing.assert_allclose(arrived, wanted, atol=1e-5)
        assert left[0].norm > 0


async def restarted(federation: Federation, link: MakeLink) -> None:
    """One client that dies once and is started again in the same folder."""
    async with federation.serving() as serving:
        first = federation.start("a", link=link)
        with pytest.raises(Killed):
            await first.end()
        first.task = None
        federation.start("a")
        await federation.end(serving)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.01)


@pytest.mark.parametrize("link", [DiesBefore, DiesAfter])
async def test_a_client_killed_between_seal_and_receipt_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: type[Link]
) -> None:
    watch = Watch(monkeypatch)
    config = run_file("clients.expect=1", "run.rounds=4", *TERNARY)
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    await restarted(federation, linked(link))
    assert federation.report.outcome == "finished"
    assert [row.clients_counted for row in federation.rounds] == [1] * 4
    watch.assert_conserved(federation, "a")


async def test_lost_receipts_move_the_residual_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    config = run_file("clients.expect=1", "run.rounds=4", *TERNARY)
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run("a", link=linked(LosesReceipts))
    assert any("the receipt was lost" in line for line in federation.sites[0].said)
    watch.assert_conserved(federation, "a")


async def test_masks_take_from_the_residual_what_they_take_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    pruning = ("pruning.density=0.3", "pruning.every=2", "pruning.floor=4")
    config = run_file("clients.expect=1", "run.rounds=8", *pruning, *TERNARY)
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run("a")
    watch.assert_conserved(federation, "a")
    assert sum(float(np.abs(taken).sum()) for taken in watch.masked.values()) > 0


async def test_stages_hand_the_residual_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ternary left out is not lost when the stage of int8 comes."""
    watch = Watch(monkeypatch)
    stages = 'compression.stages=[[0.5, "int8", 1.0]]'
    config = run_file("clients.expect=1", "run.rounds=8", *TERNARY, stages)
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run("a")
    watch.assert_conserved(federation, "a")
    up = [row.payload.up for row in federation.rounds]
    assert max(up[:4]) < min(up[4:])


async def test_every_round_is_the_model_that_the_clients_hold(tmp_path: Path) -> None:
    """Masks change, both ways are compressed: one model per version all the same."""
    config = run_file("run.rounds=6", "pruning.density=0.3", "pruning.every=2", "pruning.floor=4", *TERNARY)
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run()
    held = [site.runner._replica for site in federation.sites]
    assert all(replica is not None and replica.version is not None for replica in held)
    assert len({replica.version for replica in held if replica}) == 1
    for name in held[0].weights if held[0] else ():
        assert len({replica.weights[name].tobytes() for replica in held if replica}) == 1, name
    assert any("the new mask takes a residual" in line for site in federation.sites for line in site.said)


async def test_a_plan_that_the_client_does_not_know_is_declined_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator of a later version: the client trains for nothing not once, and the run says why it failed."""
    known = plan.upload_plan

    def unknown(*args: Any, **keys: Any) -> UploadPlan:
        return replace(known(*args, **keys), values="octonary")

    monkeypatch.setattr(plan, "upload_plan", unknown)
    watch = Watch(monkeypatch)
    monkeypatch.setattr(Server, "check", lambda server: None)
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*TERNARY)])
    assert not await federation.run()
    assert watch.updates == 0
    reason = federation.server.outcomes[0].reason
    assert "upload plan that this client does not know (got octonary, expected lossless |" in reason


def test_float16_weights_under_a_lossy_plan_are_refused_before_anyone_waits(tmp_path: Path) -> None:
    half = "def model():\n    return nn.Sequential(nn.Linear(6, 24), nn.Linear(24, 3)).half()\n"
    federation = Federation(tmp_path, task_file(tmp_path, model=half), [run_file('compression.down="int8"')])
    with pytest.raises(LocalError, match=r"float32.*'0.weight'.*got float16"):
        federation.server.check()
    Federation(tmp_path, task_file(tmp_path, model=half), [run_file()]).server.check()


async def test_updates_that_are_all_zero_do_no_harm(tmp_path: Path) -> None:
    still = "def train(model, data, ctx):\n    pass\n"
    federation = Federation(tmp_path, task_file(tmp_path, more=still), [run_file(*TERNARY)])
    assert await federation.run()
    assert len({row.accuracy for row in federation.rounds}) == 1
    assert [row.residual_norm for row in federation.rounds] == [0.0] * 3


async def test_with_feedback_one_percent_is_enough_to_learn_and_without_it_is_not(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    base = ('compression.up="ternary"', "compression.top=0.01", "run.rounds=40", "training.epochs=2")
    fed = run_file("run.name='with'", *base)
    starved = run_file("run.name='without'", "compression.error_feedback=false", *base)
    federation = Federation(tmp_path, task, [fed, starved])
    assert await federation.run()
    learned, lost = (report.final.metrics["loss"] for report in federation.reports)
    assert learned is not None
    assert lost is not None
    assert learned < 0.75 * lost


async def test_a_round_at_one_percent_costs_next_to_nothing_beside_its_payload(tmp_path: Path) -> None:
    """The 44,682 parameters of the compression bench: everything on the socket, and what of it is not payload."""
    clients = 2
    one_percent = ('compression.up="ternary"', 'compression.down="ternary"', "compression.top=0.01")
    config = run_file(f"clients.expect={clients}", "run.rounds=6", *one_percent)
    task = task_file(tmp_path, model=MLP, data=MLP_DATA)
    federation = Federation(tmp_path, task, [config])
    assert await federation.run("ab")
    assert federation.report.parameters == 44_682
    bulk = ("values", "positions", "mask", "scales", "manifest")
    # The first rounds hold joining and the first model, the last one the farewell.
    for row in federation.rounds[2:-1]:
        assert row.socket is not None
        assert max(row.socket.up, row.socket.down) <= 2000 * clients
        payload = [row.ledger[kind] for kind in bulk if kind in row.ledger]
        assert row.socket.up - sum(traffic.up for traffic in payload) <= 1000 * clients
        assert row.socket.down - sum(traffic.down for traffic in payload) <= 1000 * clients


async def test_an_automatic_plan_is_chosen_said_and_reported(tmp_path: Path) -> None:
    config = run_file('compression.plan="auto"', "run.rounds=8", "compression.tolerance=1.0")
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run()
    assert federation.rounds[0].plan == "int8"
    assert federation.rounds[0].plan_reason == "nothing is measured yet"
    for row in federation.rounds:
        assert row.plan
        assert row.link_bytes_per_s is not None
    assert federation.rounds[3].plan_reason.startswith("the slowest link moves")


async def test_the_first_model_is_drawn_at_both_ends_and_does_not_travel(tmp_path: Path) -> None:
    federation = Federation(tmp_path, task_file(tmp_path), [run_file()])
    assert await federation.run()
    first = federation.rounds[0]
    assert "snapshot" not in first.ledger
    assert first.ledger["control"].down < first.dense_equivalent.up


async def test_who_draws_another_first_model_fetches_it(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "here", task_file(tmp_path / "here"), [run_file()])
    other = "torch.manual_seed(99)\n    return nn.Sequential("
    elsewhere = task_file(tmp_path / "there", model=MODEL.replace("return nn.Sequential(", other))
    async with federation.serving() as serving:
        for name in "ab":
            federation.start(name)
        federation.start("c", task=elsewhere)
        assert await federation.end(serving)
    assert federation.rounds[0].ledger["snapshot"].down > 0
