"""Which tensors share an index space.

A stream has a fixed cost of some tens of bytes and some tenths of a millisecond: a model of many small tensors would
pay it over and over. So small tensors of one kind are laid end to end and coded as one; a large tensor is on its own,
so that nobody holds more than one large tensor at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

SMALL_ELEMENTS = 1 << 17
POOL_ELEMENTS = 1 << 18


@dataclass(slots=True, kw_only=True)
class _Pool:
    number: int
    elements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """`owner[i]` is the group of tensor i; `members[g]` are the tensors of group g, in order."""

    owner: tuple[int, ...]
    members: tuple[tuple[int, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        members: list[list[int]] = [[] for _ in range(max(self.owner, default=-1) + 1)]
        for tensor, group in enumerate(self.owner):
            members[group].append(tensor)
        object.__setattr__(self, "members", tuple(tuple(m) for m in members))


def group(kinds: Sequence[Hashable], sizes: Sequence[int]) -> Groups:
    """Put tensor i of kind `kinds[i]` and `sizes[i]` elements into groups, numbered by their first tensor."""
    owner: list[int] = []
    open_pools: dict[Hashable, _Pool] = {}
    groups = 0
    for kind, size in zip(kinds, sizes, strict=True):
        pool = open_pools.get(kind)
        if size > SMALL_ELEMENTS or pool is None or pool.elements + size > POOL_ELEMENTS:
            pool = _Pool(number=groups)
            groups += 1
            if size <= SMALL_ELEMENTS:
                open_pools[kind] = pool
        pool.elements += size
        owner.append(pool.number)
    return Groups(owner=tuple(owner))
