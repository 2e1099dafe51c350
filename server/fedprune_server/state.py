"""What the coordinator keeps beside the model, as one blob: the broadcasts' residual, the aggregator's moments, what
the pruner believes of each weight, which part of it clients of each level hold, and where the pruning controller stands.

It belongs to a version and is committed with it, so that a coordinator that comes back sends, steps and judges as if
it had never been away. safetensors: no code in it, and any program can look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.numpy import load, save

from fedprune.feedback import Memory
from fedprune_server.trials import ControlState

RESIDUAL, OPTIMIZER, BELIEFS, LEVELS, CONTROL = "residual/", "optimizer/", "beliefs/", "levels/", "control"
Arrays = Mapping[str, NDArray[Any]]
_CONTROL = TypeAdapter(ControlState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is remembered from one version to the next; `control` is None where no controller tries steps, and `levels`
    are the clients' masks as frames, by "density/version"."""

    memory: Memory = field(default_factory=Memory)
    optimizer: Arrays = field(default_factory=dict)
    beliefs: Arrays = field(default_factory=dict)
    levels: Arrays = field(default_factory=dict)
    control: ControlState | None = None


def pack_state(kept: Kept) -> bytes:
    """The blob; empty where there is nothing to remember."""
    arrays = {RESIDUAL + name: array for name, array in kept.memory.residual.items()}
    arrays |= {OPTIMIZER + name: array for name, array in kept.optimizer.items()}
    arrays |= {BELIEFS + name: array for name, array in kept.beliefs.items()}
    arrays |= {LEVELS + name: array for name, array in kept.levels.items()}
    if kept.control is not None:
        arrays[CONTROL] = np.frombuffer(_CONTROL.dump_json(kept.control), np.uint8)
    return save(arrays) if arrays else b""


def unpack_state(data: memoryview) -> Kept:
    """What `pack_state` put together."""
    arrays = load(bytes(data))
    control = arrays.get(CONTROL)

    def of(kind: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}

    return Kept(
        memory=Memory(residual=of(RESIDUAL)),
        optimizer=of(OPTIMIZER),
        beliefs=of(BELIEFS),
        levels=of(LEVELS),
        control=None if control is None else _CONTROL.validate_json(control.tobytes()),
    )
