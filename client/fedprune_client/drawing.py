"""The first model without a download: drawn here from the run's seed, and held if it is the coordinator's to the bit.

Both sides run the same `model()` under the same seed. Where torch, the machine or a pretrained start makes another
model of it, the digest says so and the client fetches the coordinator's like any other version.
"""

from __future__ import annotations

from fedprune.content import content_digest
from fedprune.mask import Mask
from fedprune.task import Task
from fedprune.tensor import Schema, Version
from fedprune.torch import build_model, to_arrays
from fedprune_client.replica import Replica


def draw(task: Task, schema: Schema, *, seed: int, sha256: bytes) -> Replica:
    """A replica at version 0 where the weights drawn from `seed` have this digest, else an empty one."""
    arrays = dict(to_arrays(build_model(task, seed=seed), schema))
    if content_digest(schema, arrays) != sha256:
        return Replica(schema=schema)
    return Replica(schema=schema, version=Version(), weights=arrays, mask=Mask.full(schema))
