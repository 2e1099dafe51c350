"""The figures of a round, as the report has them, from what the run knows: bytes by kind, layers, scores, norms. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fedprune.ledger import Direction, Entry, Kind
from fedprune.mask import Mask
from fedprune.report import LayerReport, TrialReport
from fedprune.sockets import Counters
from fedprune.traffic import Traffic
from fedprune_server.closing import Closed, Score
from fedprune_server.prepared import Arrays
from fedprune_server.proposal import Proposal
from fedprune_server.trials import Record


def residual_norm(closed: Closed) -> float:
    """The largest norm of what compression has left out, on any client or here."""
    return max([closed.prepared.kept.memory.norm, *(r.residual_norm for r in closed.receipts)])


def stall_warning(norm: float, arrays: Arrays) -> str | None:
    """A sentence when what compression has left out outweighs the model: such a run does not learn what it is sent."""
    if norm == 0.0:
        return None
    model = math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays.values() if a.dtype.kind == "f"))
    if norm <= model:
        return None
    return (
        f"compression has left out more than the model weighs (norm {norm:.3g} against {model:.3g}): "
        "raise compression.top, use finer values, or lower training.learning_rate"
    )


def payload(entries: Sequence[Entry]) -> Traffic:
    """Both directions, heartbeats left out."""
    counted = [e for e in entries if e.kind is not Kind.HEARTBEAT]
    return Traffic(
        up=sum(e.bytes for e in counted if e.direction is Direction.UP),
        down=sum(e.bytes for e in counted if e.direction is Direction.DOWN),
    )


def by_kind(entries: Sequence[Entry]) -> dict[str, Traffic]:
    """Both directions by what the bytes are for."""
    kinds: dict[str, Traffic] = {}
    for e in entries:
        up = e.bytes if e.direction is Direction.UP else 0
        kinds[e.kind.value] = kinds.get(e.kind.value, Traffic()) + Traffic(up=up, down=e.bytes - up)
    return kinds


def socket_bytes(socket: dict[int, Counters] | None) -> Traffic | None:
    """What the kernel counted on all connections; None where it does not tell."""
    if socket is None:
        return None
    return Traffic(up=sum(c.received for c in socket.values()), down=sum(c.sent for c in socket.values()))


def layers(proposal: Proposal) -> tuple[LayerReport, ...]:
    """What a new mask did to each layer, and why."""
    return tuple(
        LayerReport(
            name=layer.name,
            size=proposal.mask.schema[layer.name].size,
            alive=layer.after,
            before=layer.before,
            score=layer.score,
            threshold=layer.threshold if layer.threshold is None or math.isfinite(layer.threshold) else None,
            floor_trimmed=layer.floor_trimmed,
            grown=layer.grown,
        )
        for layer in proposal.explanation
    )


def restored(mask: Mask, tried: Sequence[LayerReport]) -> tuple[LayerReport, ...]:
    """The layers of a mask that is in force again, where `tried` were those of the step that is undone."""
    alive = {layer.name: int(mask.alive[layer.name].sum()) for layer in tried}
    return tuple(
        LayerReport(
            name=layer.name,
            size=layer.size,
            alive=alive[layer.name],
            before=layer.alive,
            grown=max(0, alive[layer.name] - layer.alive),
        )
        for layer in tried
    )


def trial(record: Record) -> TrialReport:
    """A pruning step that was judged; what is not finite becomes None."""
    drop = record.drop

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return TrialReport(
        round=record.round,
        density_before=record.density_before,
        density_tried=record.density_tried,
        decision=record.decision,
        drop=finite(drop.mean) if drop else None,
        low=finite(drop.low) if drop else None,
        high=finite(drop.high) if drop else None,
        pairs=drop.pairs if drop else 0,
    )


def accuracy(score: Score | None) -> float | None:
    """Of a score, None without one."""
    return metrics(score).get("accuracy")


def metrics(score: Score | None) -> dict[str, float | None]:
    """Of a score; what is not finite becomes None."""
    found = score.metrics if score else {}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
