"""What the coordinator keeps beside the model, as one blob: the broadcasts' residual, the aggregator's moments, and
what the pruner believes of each weight.

It belongs to a version and is committed with it, so that a coordinator that comes back sends and steps as if it had
never been away. safetensors: no code in it, and any program can look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load, save

from fedprune.feedback import Memory

RESIDUAL, OPTIMIZER, BELIEFS = "residual/", "optimizer/", "beliefs/"
Arrays = Mapping[str, NDArray[Any]]


def pack_state(memory: Memory, optimizer: Arrays, beliefs: Arrays) -> bytes:
    """The blob; empty where there is nothing to remember."""
    arrays = {RESIDUAL + name: array for name, array in memory.residual.items()}
    arrays |= {OPTIMIZER + name: array for name, array in optimizer.items()}
    arrays |= {BELIEFS + name: array for name, array in beliefs.items()}
    return save(arrays) if arrays else b""


def unpack_state(data: memoryview) -> tuple[Memory, Arrays, Arrays]:
    """What `pack_state` put together."""
    arrays = load(bytes(data))

    def of(kind: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}

    return Memory(residual=of(RESIDUAL)), of(OPTIMIZER), of(BELIEFS)
