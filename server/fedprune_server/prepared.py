"""A version of the model with all that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from fedprune.mask import Mask
from fedprune.parts import Part
from fedprune.tensor import Version
from fedprune_server.levels import Levels, newest_mask
from fedprune_server.state import Kept
from fedprune_server.store import VersionRecord

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A version that is encoded and stored, but not yet the latest."""

    version: Version
    arrays: Arrays
    mask: Mask
    record: VersionRecord
    steps: tuple[Part, ...]
    # What the broadcasts left out so far, what aggregator and pruner remember, and where the controller stands.
    kept: Kept = field(default_factory=Kept)
    dropped_norm: float = 0.0
    # The masks of clients that hold a part of the model, and the same step for each.
    levels: Levels = field(default_factory=dict)
    level_steps: tuple[tuple[Part, ...], ...] = ()

    @property
    def newest_mask(self) -> int:
        """The highest mask version that is taken."""
        return newest_mask(self.mask, self.levels)

    def mask_of(self, version: Version) -> Mask | None:
        """The mask under which this version is called that; None where that is another version."""
        if (version.shape, version.model) != (self.version.shape, self.version.model):
            return None
        return next((mask for mask in (self.mask, *self.levels.values()) if mask.version == version.mask), None)

    def at_level(self, density: float | None) -> Version:
        """This version as a client of this level holds it; None: the whole of it."""
        mask = self.levels.get(density, self.mask) if density is not None else self.mask
        return replace(self.version, mask=mask.version)
