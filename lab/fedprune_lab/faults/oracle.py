"""The model that a run must end with, from its accepted sets alone: no network, no disk, no recovery.

Applies each update exactly once, in the rounds that the receipts name. Whatever was lost, doubled or folded against
another version shows as another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fedprune.codec import Limits, Plan, UpdateReader, encode_update
from fedprune.config import RunConfig
from fedprune.mask import Mask
from fedprune.tensor import Schema, Version
from fedprune_lab.faults.scripted import Arrays, changed, examples_of
from fedprune_server import plan
from fedprune_server.aggregation import FoldInput, fedavg
from fedprune_server.pruner import Pruner


def final_model(
    config: RunConfig, schema: Schema, first: Arrays, accepted: Sequence[tuple[int, Sequence[str]]]
) -> Arrays:
    """The weights after the rounds of `accepted`, each with the names of the clients whose updates count in it."""
    arrays, mask = dict(first), Mask.full(schema)
    pruner = Pruner(plan.pruning_plan(config, schema), config.run.rounds)
    for model, (round_, names) in enumerate(accepted):
        version = Version(model=model, mask=mask.version)
        updates = [_update(schema, arrays, mask, version, name=name, round_=round_) for name in names]
        arrays = dict(fedavg(rate=config.aggregation.rate).fold(schema, arrays, mask, updates).arrays)
        proposal = pruner.propose(round=round_, weights=arrays, mask=mask, next_mask_version=mask.version + 1)
        if proposal is not None:
            mask = proposal.mask
            mask.apply(arrays)
    return arrays


def _update(schema: Schema, base: Arrays, mask: Mask, version: Version, *, name: str, round_: int) -> FoldInput:
    weights = changed(base, mask, name=name, round_=round_)
    frame = encode_update(weights, schema=schema, plan=Plan(values="lossless"), mask=mask, base=base, version=version)
    reader = UpdateReader(frame, schema=schema, mask=mask, base=base, limits=Limits.of_update(schema, mask))
    return FoldInput(party=name, examples=examples_of(name), content=reader.content, open=partial(iter, reader))
