"""Masks that clients' data decides: scores and votes travel over real sockets, count once, and are refused alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedprune.codec import Limits, decode_mask_set
from fedprune.errors import StoreError
from fedprune.mask import Mask
from fedprune.task import Shard, load_task
from fedprune.tensor import Schema
from fedprune.torch import assign_roles, build_model, signature, to_arrays
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import ScoreWork
from fedprune_client import encoding
from fedprune_client.scoring import Scored, score
from fedprune_client.training import Trainer
from fedprune_client.transport import Link
from fedprune_server.plan import derive_seed

from .federation import DATA, HEAD, Federation, run_file, task_file

SNIP = ("pruning.method='snip'", "pruning.density=0.5", "pruning.schedule='init'", "pruning.floor=4")
REGROW = (
    "run.rounds=5",
    "pruning.method='random'",
    "pruning.density=0.4",
    "pruning.schedule='regrow'",
    "pruning.every=1",
    "pruning.start=0.0",
    "pruning.end=0.9",
    "pruning.floor=4",
)


def mask_of(folder: Path, schema: Schema, version: int) -> Mask:
    data = (folder / "runs" / "run" / "masks" / f"v{version}.mask").read_bytes()
    return decode_mask_set(data, schema=schema, version=version, base=None, limits=Limits.of_mask(schema))


def schema_of(task: Path) -> Schema:
    return assign_roles(signature(build_model(load_task(task))), [], [])


async def test_before_round_1_the_clients_score_the_first_model(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    federation = Federation(tmp_path, task, [run_file(*SNIP)])
    assert await federation.run()
    schema = schema_of(task)
    chosen = mask_of(tmp_path, schema, 1)
    assert chosen.density == pytest.approx(0.5, abs=0.01)
    assert [r.mask_version for r in federation.rounds] == [1, 1, 1]
    assert [r.model_version for r in federation.rounds] == [2, 3, 4]
    # Why it looks so stands in the first round's report.
    told = federation.rounds[0].layers
    assert [(layer.name, layer.score) for layer in told] == [(name, "snip") for name in chosen.alive]
    assert [layer.alive for layer in told] == [int(bits.sum()) for bits in chosen.alive.values()]
    assert [layer.before for layer in told] == [bits.size for bits in chosen.alive.values()]
    assert all(layer.threshold is not None for layer in told)
    assert federation.rounds[1].layers == ()
    # By hand: |g w| of each client on the first weights, weighted by examples, the largest half.
    total = by_hand(task, schema)
    names = list(chosen.alive)
    flat = np.concatenate([total[n].reshape(-1) for n in names])
    best = flat >= np.sort(flat)[-chosen.alive_count]
    mine = np.concatenate([chosen.alive[n].reshape(-1) for n in names])
    # Eight bits and a floor under each row decide the border; the rest is the same.
    assert np.mean(best == mine) > 0.9
    assert np.all(load_file(tmp_path / "runs" / "run" / "model.safetensors")[names[0]][~chosen.alive[names[0]]] == 0)


def by_hand(task: Path, schema: Schema) -> dict[str, Any]:
    loaded = load_task(task)
    weights = to_arrays(build_model(loaded, seed=1), schema)
    parts: list[Scored] = []
    for shard in range(3):
        place = Shard(index=shard, count=3, path=task.parent, seed=1)
        trainer = Trainer.load(loaded, build_model(loaded), schema, place, 0.1)
        work = ScoreWork(method="snip", batch_size=16, seed=derive_seed(1, "scores", 0, shard))
        found = score(trainer, weights, Mask.full(schema), work, stop=lambda: False)
        assert found is not None
        parts.append(found)
    examples = sum(p.examples for p in parts)
    return {
        t.name: sum(p.scores[t.name] * (p.examples / examples) for p in parts if p.scores is not None)
        for t in schema.prunable
    }


@pytest.mark.parametrize("method", ["gradient", "taylor", "fisher", "movement", "activation", "apoz", "wanda"])
async def test_every_score_from_data_prunes_in_the_middle_of_a_run(tmp_path: Path, method: str) -> None:
    config = run_file(
        f"pruning.method='{method}'",
        "pruning.density=0.5",
        "pruning.schedule='once'",
        "pruning.start=0.7",
        "pruning.end=1.0",
    )
    federation = Federation(tmp_path, task_file(tmp_path), [config])
    assert await federation.run()
    assert [r.density for r in federation.rounds] == [1.0, pytest.approx(0.5, abs=0.02), pytest.approx(0.5, abs=0.02)]
    assert [r.clients_counted for r in federation.rounds] == [3, 3, 3]


@pytest.mark.parametrize("regrow", ["votes", "gradient", "posterior"])
async def test_weights_are_exchanged_by_what_the_clients_ask_for(tmp_path: Path, regrow: str) -> None:
    task = task_file(tmp_path)
    federation = Federation(tmp_path, task, [run_file(*REGROW, f"pruning.regrow='{regrow}'")])
    assert await federation.run()
    schema = schema_of(task)
    masks = [mask_of(tmp_path, schema, v) for v in (1, 2, 3, 4)]
    counts = [{n: int(b.sum()) for n, b in m.alive.items()} for m in masks]
    assert counts == counts[:1] * 4
    assert len({m.fingerprint for m in masks}) == 4
    assert len({r.density for r in federation.rounds}) == 1
    changes = [r for r in federation.rounds if r.mask_changed]
    assert [r.round for r in changes] == [1, 2, 3]
    assert all(sum(layer.grown for layer in r.layers) > 0 for r in changes)
    assert {layer.score for r in changes for layer in r.layers} == {
        "posterior" if regrow == "posterior" else "magnitude"
    }


async def test_votes_are_smaller_than_gradients_and_both_than_scores(tmp_path: Path) -> None:
    sizes: dict[str, int] = {}
    for name, more in (("votes", ()), ("gradient", ()), ("whole", ())):
        keys = (*REGROW, f"pruning.regrow='{name}'") if name != "whole" else (*SNIP, "pruning.schedule='cubic'")
        folder = tmp_path / name
        link, seen = watching()
        keys = (*keys, "run.rounds=5", "pruning.every=1", *more)
        assert await Federation(folder, task_file(folder), [run_file(*keys)]).run(link=link)
        scores = [b.size for b in seen if not b.metrics]
        sizes[name] = max(scores)
    assert sizes["votes"] < sizes["gradient"] < sizes["whole"]


MERGE = (
    "pruning.method='taylor'",
    "pruning.density=0.3",
    "pruning.schedule='once'",
    "pruning.start=0.3",
    "pruning.end=1.0",
    "pruning.floor=2",
)


async def test_masks_that_clients_propose_are_merged_and_pruned_back(tmp_path: Path) -> None:
    found: dict[str, float] = {}
    for rule in ("union", "majority", "quorum", "intersection"):
        folder = tmp_path / rule
        link, seen = watching()
        federation = Federation(
            folder, task_file(folder), [run_file(*MERGE, f"pruning.merge='{rule}'", "pruning.quorum=0.9")]
        )
        assert await federation.run(link=link)
        found[rule] = federation.report.final.density
        assert [r.clients_counted for r in federation.rounds] == [3, 3, 3]
        # A mask is at most a bit a weight, and little around it.
        proposals = [begin.size for begin in seen if not begin.metrics]
        assert len(proposals) == 3
        assert max(proposals) < 528 / 8 + 150
        disagrees = any("the clients' masks do not agree" in w for w in federation.rounds[0].warnings)
        assert disagrees == (rule == "union")
    assert found["union"] == pytest.approx(0.3, abs=0.01)
    assert found["union"] >= found["majority"] >= found["quorum"] >= found["intersection"] > 0.1
    assert found["majority"] > found["intersection"]


async def test_a_client_that_proposes_more_than_its_share_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, lies = encoding.encode_scored, list[int]()

    def lie(assignment: Any, mask: Mask, scored: Scored) -> bytes:
        if not lies or lies[0] == assignment.assignment_id:
            lies.append(assignment.assignment_id)
            scored = replace(scored, proposed=replace(mask, version=mask.version + 1))
        return honest(assignment, mask, scored)

    monkeypatch.setattr("fedprune_client.worker.encode_scored", lie)
    keys = (*MERGE, "pruning.merge='majority'", "pruning.schedule='init'")
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*keys)])
    assert await federation.run()
    assert any("more than its share" in said for said in federation.said)
    assert [r.clients_counted for r in federation.rounds] == [3, 3, 3]
    assert federation.report.final.density <= 0.31


def watching() -> tuple[Callable[[str, str, Callable[[str], None]], Link], list[pb.Begin]]:
    seen: list[pb.Begin] = []

    class Watching(Link):
        async def submit(self, begin: pb.Begin, frame: Any, *, chunk_bytes: int) -> pb.Receipt:
            seen.append(begin)
            return await super().submit(begin, frame, chunk_bytes=chunk_bytes)

    return lambda server, name, say: Watching(server, name, say=say), seen


async def test_a_client_whose_scores_are_none_is_refused_alone_and_still_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three sends its scores as if the mask were another: the others decide, and all three train."""
    honest = encoding.encode_scored
    lies: list[int] = []

    def lie(assignment: Any, mask: Mask, scored: Scored) -> bytes:
        if not lies or lies[0] == assignment.assignment_id:
            lies.append(assignment.assignment_id)
            return honest(assignment, mask, scored)[:-1] + b"?"
        return honest(assignment, mask, scored)

    monkeypatch.setattr("fedprune_client.worker.encode_scored", lie)
    federation = Federation(tmp_path, task_file(tmp_path), [run_file(*SNIP)])
    assert await federation.run()
    assert lies
    assert [r.clients_counted for r in federation.rounds] == [3, 3, 3]
    assert federation.rounds[0].density == pytest.approx(0.5, abs=0.01)
    assert any("did not contribute" in said for said in federation.said)


async def test_a_run_whose_first_model_nobody_can_score_fails_and_says_why(tmp_path: Path) -> None:
    bad = f"{HEAD}{DATA}".replace("return TensorDataset", "x.fill_(float('nan'))\n    return TensorDataset")
    federation = Federation(tmp_path, task_file(tmp_path, data=bad), [run_file(*SNIP)])
    assert not await federation.run()
    reason = federation.server.outcomes[0].reason
    assert reason.startswith("nobody could score the first model: client ")
    assert "not finite" in reason


MERGED = (*MERGE, "pruning.merge='majority'")
POSTERIOR = (*REGROW, "pruning.regrow='posterior'")


@pytest.mark.parametrize(
    ("keys", "receipts"), [(SNIP, 1), (MERGED, 2), (POSTERIOR, 1), (POSTERIOR, 8), (POSTERIOR, 14)]
)
async def test_a_run_that_is_cut_off_ends_with_the_same_model(
    tmp_path: Path, keys: tuple[str, ...], receipts: int
) -> None:
    """After so many receipts, of scores or of updates, coordinator and clients are gone, and come back."""
    whole = Federation(tmp_path / "whole", task_file(tmp_path / "whole"), [run_file(*keys)])
    assert await whole.run()
    folder = tmp_path / "cut"
    await Federation(folder, task_file(folder), [run_file(*keys)]).cut_off(receipts=receipts)
    again = Federation(folder, folder / "task.py", [run_file(*keys)])
    assert await again.run()
    assert again.model == whole.model
    assert [r.mask_version for r in again.rounds] == [r.mask_version for r in whole.rounds][-len(again.rounds) :]


async def test_a_run_that_is_cut_off_behind_its_first_mask_goes_on(tmp_path: Path) -> None:
    """The mask is committed and no round is open yet: what is folded must not be folded again."""
    folder = tmp_path / "cut"
    first = Federation(folder, task_file(folder), [run_file(*SNIP)])

    def die(point: str) -> None:
        if point == "version-adopted":
            raise StoreError("cut off here")

    first.server.failpoint = die
    with pytest.raises(StoreError, match="cut off here"):
        await first.run()
    again = Federation(folder, folder / "task.py", [run_file(*SNIP)])
    assert await again.run()
    assert [r.clients_counted for r in again.rounds] == [3, 3, 3]
    assert [r.mask_version for r in again.rounds] == [1, 1, 1]
