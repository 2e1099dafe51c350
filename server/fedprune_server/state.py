"""What the coordinator keeps beside the model, as one blob: the broadcasts' residual and the aggregator's moments.

It belongs to a version and is committed with it, so that a coordinator that comes back sends and steps as if it had
never been away. safetensors: no code in it, and any program can look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load, save

from fedprune.feedback import Memory

RESIDUAL, OPTIMIZER = "residual/", "optimizer/"


def pack_state(memory: Memory, optimizer: Mapping[str, NDArray[Any]]) -> bytes:
    """The blob; empty where there is nothing to remember."""
    arrays = {RESIDUAL + name: array for name, array in memory.residual.items()}
    arrays |= {OPTIMIZER + name: array for name, array in optimizer.items()}
    return save(arrays) if arrays else b""


def unpack_state(data: memoryview) -> tuple[Memory, dict[str, NDArray[Any]]]:
    """What `pack_state` put together."""
    arrays = load(bytes(data))
    residual = {n.removeprefix(RESIDUAL): a for n, a in arrays.items() if n.startswith(RESIDUAL)}
    optimizer = {n.removeprefix(OPTIMIZER): a for n, a in arrays.items() if n.startswith(OPTIMIZER)}
    return Memory(residual=residual), optimizer
