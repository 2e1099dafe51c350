"""What a client signs of an update: canonical text that both ends make from the same announcement.

The bytes of an update are named by their digest, so whoever signs the manifest has signed them. The first member says
what the text is, so that a signature over it can never be taken for one over anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from fedprune.tensor import Version

WHAT = "fedprune update 1"


def manifest(
    *,
    run_id: str,
    assignment_id: int,
    version: Version,
    sha256: str,
    size: int,
    examples: int,
    metrics: Mapping[str, float],
    work_s: float,
    residual_norm: float,
) -> str:
    """JSON without spaces, members sorted, numbers as Python writes them; docs/security.md has an example."""
    facts = {
        "assignment": assignment_id,
        "examples": examples,
        "metrics": dict(metrics),
        "residual_norm": residual_norm,
        "run": run_id,
        "sha256": sha256,
        "size": size,
        "version": [version.shape, version.model, version.mask],
        "what": WHAT,
        "work_s": work_s,
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"))
