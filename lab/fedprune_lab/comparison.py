"""Two runs of one task side by side: what pruning cost in accuracy and what it saved in bytes. Pure.

The dense run is the baseline twice over: `raw` is what its weights weigh at four bytes each, `same codec` is what it
really moved, round for round. Bytes are the socket's where the kernel counted both runs, else the payload's, and
`measured_on` says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fedprune.report import RoundReport, RunReport, Span, steady_rounds
from fedprune.traffic import Ratio, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Bytes of the dense baselines for each byte that the pruned run moved, over `rounds` rounds from
    `first_round` on. `same_codec` is None where the dense run did not get as far."""

    first_round: int
    rounds: int
    raw: Ratio
    same_codec: Ratio | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`accuracy_gap` is dense less pruned, as a share, each the mean of its last evaluations."""

    dense: str
    pruned: str
    density: float
    q: float
    accuracy_gap: float | None
    measured_on: Literal["socket", "payload"]
    whole_run: Saving
    steady_state: Saving | None

    @property
    def codec_merit(self) -> float | None:
        """The steady `same codec` ratio times q: 1.0 is what the weights that are left explain."""
        if self.steady_state is None or self.steady_state.same_codec is None:
            return None
        both = self.steady_state.same_codec.both
        return None if both is None else both * self.q

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: "comparison" in the demo's report."""
        return asdict(self) | {"codec_merit": self.codec_merit}


def compare(dense: RunReport, pruned: RunReport) -> Comparison:
    """Hold a pruned run against the dense run of the same task, clients and rounds."""
    measured = dense.totals.socket is not None and pruned.totals.socket is not None
    gap = None
    if dense.final.accuracy_last_rounds is not None and pruned.final.accuracy_last_rounds is not None:
        gap = dense.final.accuracy_last_rounds - pruned.final.accuracy_last_rounds
    whole = _saving(dense, pruned.totals, pruned.rounds, measured)
    steady = pruned.steady_state
    return Comparison(
        dense=dense.name,
        pruned=pruned.name,
        density=pruned.final.density,
        q=pruned.q,
        accuracy_gap=gap,
        measured_on="socket" if measured else "payload",
        whole_run=whole,
        steady_state=_saving(dense, steady, steady_rounds(pruned.rounds), measured) if steady else None,
    )


def _saving(dense: RunReport, span: Span, rounds: Sequence[RoundReport], measured: bool) -> Saving:
    numbers = {row.round for row in rounds}
    beside = [row for row in dense.rounds if row.round in numbers]
    moved = _moved(rounds, measured)
    return Saving(
        first_round=span.first_round,
        rounds=span.rounds,
        raw=Ratio.of(span.dense_equivalent, moved),
        same_codec=Ratio.of(_moved(beside, measured), moved) if len(beside) == len(numbers) else None,
    )


def _moved(rounds: Sequence[RoundReport], measured: bool) -> Traffic:
    socket = Traffic.total_if_known(row.socket for row in rounds)
    return socket if measured and socket is not None else Traffic.total(row.payload for row in rounds)
