"""Settings by name pattern, resolved to single layers before a run starts.

A pattern that matches nothing is a typing error that would otherwise show, if at all, as a layer of the wrong size at
the end of the run; two patterns that say different things about one layer are a question, not an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from fedprune.errors import LocalError


def matching(pattern: str, names: Sequence[str], *, key: str) -> tuple[str, ...]:
    """The names that `pattern` (with * and ?) matches. Raises `LocalError` naming it and `key` when there are none."""
    found = tuple(name for name in names if fnmatchcase(name, pattern))
    if not found:
        raise LocalError(
            f"{key}: the pattern {pattern!r} matches no tensor that can be pruned",
            expected=f"one of {', '.join(names)}" if names else "a model with prunable tensors",
            next_step="Correct the pattern; `fedprune check` lists the names",
        )
    return found


def resolve(settings: Mapping[str, float], names: Sequence[str], *, key: str) -> dict[str, float]:
    """Pattern -> value becomes name -> value. Raises `LocalError` where a pattern matches nothing, or two that match
    the same name have different values."""
    values: dict[str, float] = {}
    said_by: dict[str, str] = {}
    for pattern, value in settings.items():
        for name in matching(pattern, names, key=key):
            if values.setdefault(name, value) != value:
                raise LocalError(
                    f"{key}: {said_by[name]!r} and {pattern!r} contradict each other about {name!r}",
                    seen=f"{values[name]} and {value}",
                    next_step="Keep one of them, or make the patterns narrower",
                )
            said_by.setdefault(name, pattern)
    return values
