"""What `[compression] exact` names, and what it costs: said before a run starts, because a pattern is quickly written
and one large matrix that travels whole can outweigh everything else in a round.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from fedprune.applying import weights_of
from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.tensor import Schema

# A float32 weight of an update, lossless (docs/codec-bench.md).
BYTES_A_WEIGHT = 3.4


def exact_note(config: RunConfig, schema: Schema) -> str:
    """A sentence with the price of the run's exact tensors; empty where it names none. Raises `ConfigError` for a
    pattern that matches no weights."""
    names = [spec.name for spec in weights_of(schema)]
    for pattern in config.compression.exact:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                "compression.exact has a pattern that matches no weights",
                seen=repr(pattern),
                next_step=f"The model's weights are: {', '.join(names)}",
            )
    kept = [s for s in weights_of(schema) if any(fnmatchcase(s.name, p) for p in config.compression.exact)]
    if not kept:
        return ""
    weights = sum(spec.size for spec in kept)
    return (
        f"compression.exact keeps {', '.join(spec.name for spec in kept)} lossless: {weights:,} of "
        f"{schema.parameters:,} weights, about {weights * BYTES_A_WEIGHT / 1000:,.1f} kB for each client and round, each way"
    )
