"""Seconds of CPU to fold a round, one core: `python bench/fold.py [--parameters 11000000] [--clients 8]`.

Averaging of dense and of pruned updates, the check that each update passes on arrival, and the rules that look at
single vectors, on a million weights of 32 clients. The updates are in memory: decoding is the codec's figure.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import Content, Packed
from fedprune.mask import Mask
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.aggregation import RULES, FoldInput, aggregator

Arrays = dict[str, NDArray[Any]]
REPEATS = 3


def perceptron(parameters: int, *, width: int = 1024) -> Schema:
    """Square matrices and their biases, of about so many parameters."""
    layers = max(1, parameters // (width * width))
    specs = [TensorSpec(name=f"{i}.weight", shape=(width, width)) for i in range(layers)]
    specs += [TensorSpec(name=f"{i}.bias", shape=(width,), role=Role.FREE) for i in range(layers)]
    return Schema(tensors=tuple(specs))


def drawn(schema: Schema, rng: np.random.Generator, spread: float, around: Arrays | None = None) -> Arrays:
    """Random weights."""
    return {
        t.name: (rng.standard_normal(t.shape, np.float32) * spread + (0 if around is None else around[t.name]))
        for t in schema
    }


def packed(schema: Schema, mask: Mask, weights: Arrays) -> Iterator[tuple[TensorSpec, Packed]]:
    """What travels of these weights."""
    for spec in schema:
        flat = weights[spec.name].reshape(-1)
        pruned = spec.role is Role.PRUNABLE and not mask.alive[spec.name].all()
        yield spec, Packed(None, flat.take(mask.indices(spec.name)) if pruned else flat)


def measured(rule: str, schema: Schema, clients: int, density: float) -> tuple[float, float]:
    """Seconds of CPU for the fold and for the check of one update: the best of some repeats."""
    rng = np.random.default_rng(0)
    mask = Mask(
        schema=schema, version=1, alive={t.name: rng.random(t.shape, np.float32) < density for t in schema.prunable}
    )
    base = drawn(schema, rng, 0.05)
    mask.apply(base)
    updates = [
        FoldInput(
            examples=100 + k,
            content=Content.WEIGHTS,
            open=partial(packed, schema, mask, drawn(schema, rng, 0.001, base)),
            party=f"client {k}",
        )
        for k in range(clients)
    ]
    made = aggregator(rule)
    folds = [seconds(lambda: made.fold(schema, base, mask, updates)) for _ in range(REPEATS)]
    checks = [seconds(lambda: made.check(schema, base, mask, updates[0])) for _ in range(REPEATS)]
    return min(folds), min(checks)


def seconds(work: Any) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parameters", type=int, default=11_000_000)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    large, small = perceptron(given.parameters), perceptron(1_000_000)
    for rule, density in (("fedavg", 1.0), ("fedavg", 0.1), ("fedadam", 1.0)):
        fold, check = measured(rule, large, given.clients, density)
        print(
            f"{rule:13s} {large.parameters:>11,} parameters  density {density:4.2f}  {given.clients:3d} clients  "
            f"fold {fold:6.3f} s  check of one {check:6.3f} s",
            flush=True,
        )
    for rule in RULES:
        fold, _ = measured(rule, small, 32, 1.0)
        print(
            f"{rule:13s} {small.parameters:>11,} parameters  density 1.00   32 clients  fold {fold:6.3f} s", flush=True
        )
    print(f"peak resident memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, updates included")


if __name__ == "__main__":
    main()
