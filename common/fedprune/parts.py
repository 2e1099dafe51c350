"""What a download is made of: blobs that, applied in order, bring a holder from one version to another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fedprune.tensor import Version


class PartKind(Enum):
    """What a part of a transfer is: a mask, a whole model on its mask, or a step from the version before."""

    MASK = "mask"
    MODEL = "model"
    DELTA = "delta"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One blob of a transfer; applying it to `base` (None: to anything) gives `version`."""

    kind: PartKind
    version: Version
    base: Version | None
    digest: str
    size: int
