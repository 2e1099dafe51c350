"""What the network must not change: the model is the one that plain arithmetic gives, to the bit where it is pruned."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from fedprune.codec import Content, Packed, decode_mask_set
from fedprune.config import RunConfig
from fedprune.mask import Mask
from fedprune.task import Shard, load_task
from fedprune.tensor import Schema
from fedprune.torch import assign_roles, build_model, signature, to_arrays
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.training import Trainer
from fedprune_client.transport import Link
from fedprune_server import plan
from fedprune_server.aggregation import FoldInput, fedavg
from fedprune_server.pruner import Pruner

from .federation import Federation, run_file, task_file

Arrays = Mapping[str, NDArray[Any]]
CLIENTS = 3


def plain_fedavg(task_path: Path, config: RunConfig) -> dict[str, NDArray[Any]]:
    """FedAvg as the paper has it (McMahan et al., 2017), in torch and nothing else; means in float64."""
    task = load_task(task_path)
    model = build_model(task, seed=config.run.seed)
    shards = [task.train_data(Shard(index=i, count=CLIENTS, path=task_path, seed=0)) for i in range(CLIENTS)]
    for _ in range(config.run.rounds):
        sums = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in model.state_dict().items()}
        for shard in shards:
            local = copy.deepcopy(model)
            sgd = torch.optim.SGD(
                local.parameters(), lr=config.training.learning_rate, momentum=config.training.momentum
            )
            x, y = shard.tensors
            for _ in range(config.training.epochs):
                sgd.zero_grad()
                torch.nn.functional.cross_entropy(local(x), y).backward()
                sgd.step()
            for name, tensor in local.state_dict().items():
                sums[name] += len(x) * tensor.double()
        total = sum(len(shard) for shard in shards)
        model.load_state_dict({name: (t / total).float() for name, t in sums.items()})
    return {name: t.numpy() for name, t in model.state_dict().items()}


def one_process(task_path: Path, config: RunConfig) -> tuple[Schema, dict[int, Mask], Arrays]:
    """The same run without server, client, codec or store: trainer, fold and pruner called in turn."""
    task = load_task(task_path)
    model = build_model(task, seed=config.run.seed)
    schema = assign_roles(signature(model), config.pruning.protect, config.pruning.prune)
    pruner = Pruner(plan.pruning_plan(config, schema), config.run.rounds)
    pruner.check(schema)
    arrays: Arrays = to_arrays(model, schema)
    mask = Mask.full(schema)
    masks = {0: mask}
    trainers = [
        Trainer.load(
            task,
            model,
            schema,
            Shard(index=i, count=CLIENTS, path=task_path, seed=config.run.seed),
            config.training.held_out,
        )
        for i in range(CLIENTS)
    ]
    for round_ in range(1, config.run.rounds + 1):
        updates = []
        for shard, trainer in enumerate(trainers):
            work = plan.train_work(config, round_=round_, shard=shard)
            trained = trainer.train(arrays, mask, work, on_step=lambda step, steps: None, stop=lambda: False)
            assert trained is not None
            updates.append(as_input(schema, mask, trained.weights, trained.examples))
        arrays = fedavg().fold(schema, arrays, mask, updates).arrays
        proposal = pruner.propose(round=round_, weights=arrays, mask=mask, next_mask_version=mask.version + 1)
        if proposal is not None:
            mask = masks[proposal.mask.version] = proposal.mask
            mask.apply(arrays)
    return schema, masks, arrays


def as_input(schema: Schema, mask: Mask, weights: Arrays, examples: int) -> FoldInput:
    packed = [
        (
            spec,
            Packed(
                None,
                weights[spec.name].reshape(-1)[mask.indices(spec.name) if spec.name in mask.alive else slice(None)],
            ),
        )
        for spec in schema
    ]
    return FoldInput(examples=examples, content=Content.WEIGHTS, open=lambda: iter(packed))


def outcome(folder: Path, schema: Schema) -> tuple[dict[int, Mask], Arrays]:
    """What a run left behind: its masks by version, its model."""
    masks = {}
    for path in (folder / "masks").iterdir():
        version = int(path.stem.removeprefix("v"))
        masks[version] = decode_mask_set(path.read_bytes(), schema=schema, version=version, base=None)
    return masks, load_file(folder / "model.safetensors")


def same_bits(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(one[n].tobytes() == other[n].tobytes() for n in one)


async def test_a_full_mask_is_federated_averaging(tmp_path: Path) -> None:
    config = run_file("run.rounds=4", "training.held_out=0.0", "training.batch_size=1000", "training.epochs=2")
    task = task_file(tmp_path)
    federation = Federation(tmp_path, task, [config])
    assert await federation.run()
    wanted = plain_fedavg(task, config)
    reached = load_file(tmp_path / "runs" / "run" / "model.safetensors")
    start = to_arrays(build_model(load_task(task), seed=config.run.seed), signature(build_model(load_task(task))))
    for name, array in wanted.items():
        assert np.abs(array - reached[name]).max() <= 1e-6, name
        assert np.abs(array - start[name]).max() > 1e-3, "nothing was learnt, so nothing was compared"


PRUNED = ("run.rounds=6", "pruning.density=0.3", "pruning.every=2", "pruning.floor=4", "pruning.end=0.7")


async def test_a_pruned_run_is_the_same_as_in_one_process_to_the_bit(tmp_path: Path) -> None:
    config = run_file(*PRUNED)
    task = task_file(tmp_path)
    federation = Federation(tmp_path, task, [config])
    assert await federation.run()
    schema, masks, arrays = one_process(task, config)
    found_masks, found_arrays = outcome(tmp_path / "runs" / "run", schema)
    assert {v: m.fingerprint for v, m in found_masks.items()} == {v: m.fingerprint for v, m in masks.items()}
    assert same_bits(arrays, found_arrays)
    assert len(masks) >= 3
    assert federation.report.final.density == masks[max(masks)].density < 0.35


class Turns:
    """Lets clients submit in a fixed order, round after round."""

    def __init__(self, order: Sequence[str]) -> None:
        self.order = order
        self.arrived: list[str] = []
        self._changed = asyncio.Condition()

    async def take(self, name: str, submit: Callable[[], Awaitable[pb.Receipt]]) -> pb.Receipt:
        """Submit when it is this client's turn."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.order[len(self.arrived) % len(self.order)] == name)
            receipt = await submit()
            self.arrived.append(name)
            self._changed.notify_all()
            return receipt


class PatientLink(Link):
    """Waits for its turn."""

    def __init__(self, server: str, identity: str, say: Callable[[str], None], turns: Turns) -> None:
        super().__init__(server, identity, say=say)
        self._name, self._turns = identity, turns

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        submit = partial(super().submit, begin, frame, chunk_bytes=chunk_bytes)
        return await self._turns.take(self._name, submit)


@pytest.mark.parametrize("order", ["cba", "bca", "acb"])
async def test_the_order_of_arrival_does_not_show(tmp_path: Path, order: str) -> None:
    config = run_file(*PRUNED)
    task = task_file(tmp_path)
    turns = Turns(order)
    federation = Federation(tmp_path, task, [config])
    assert await federation.run(link=lambda server, identity, say: PatientLink(server, identity, say, turns))
    assert "".join(turns.arrived) == order * config.run.rounds
    schema, masks, arrays = one_process(task, config)
    found_masks, found_arrays = outcome(tmp_path / "runs" / "run", schema)
    assert found_masks[max(masks)].fingerprint == masks[max(masks)].fingerprint
    assert same_bits(arrays, found_arrays)
