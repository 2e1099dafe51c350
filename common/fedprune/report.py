"""What a run did, as the values that `report.json` holds: one `RoundReport` a round, one `RunReport` a run.

The coordinator makes a `RoundReport` from what it measured and nothing else; all that can be computed from the rounds
(totals, the steady state, the ratios) is computed here, once, so that no reader has to know how. The words are those
of docs/report.md, which also says what each key means. No clock, no files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedprune.errors import LocalError
from fedprune.traffic import Ratio, Traffic

SCHEMA = 1
# The first round after a mask change still carries the mask; fewer rounds than this are no steady state.
ROUNDS_OF_CHANGE = 2
FEWEST_STEADY_ROUNDS = 8
LAST_ROUNDS = 5

AccuracySource = Literal["coordinator test data", "clients' held-out share"]
Outcome = Literal["running", "finished", "stopped", "failed"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """One tensor at a mask change: weights alive after it, of `size`; and why, as docs/report.md says."""

    name: str
    size: int
    alive: int
    before: int | None = None
    score: str | None = None
    threshold: float | None = None
    floor_trimmed: int = 0
    grown: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopsReport:
    """Operations for one example, forward and loss: of the `dense` model, of what was `left` at the end, and of each
    weight of each prunable tensor."""

    dense: float
    left: float
    per_weight: dict[str, float]

    def of_layer(self, layer: LayerReport) -> float | None:
        """Operations of the weights that a change of the mask left of a layer."""
        each = self.per_weight.get(layer.name)
        return None if each is None else each * layer.alive


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialReport:
    """A pruning step on approval, when it was decided: proposed with the version of `round`; `drop` is the mean drop of
    accuracy over `pairs` clients against the best accepted model, `low` and `high` its interval."""

    round: int
    density_before: float
    density_tried: float
    decision: str
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """One committed round, bytes summed over clients; see docs/report.md for each key."""

    round: int
    accuracy: float | None = None
    density: float
    seconds: float
    payload: Traffic
    socket: Traffic | None = None
    dense_equivalent: Traffic
    density_of_all: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    ledger: dict[str, Traffic] = field(default_factory=dict)
    clients_asked: int = 0
    clients_counted: int = 0
    examples: int = 0
    work_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    residual_norm: float = 0.0
    plan: str = ""
    plan_reason: str = ""
    link_bytes_per_s: float | None = None
    model_version: int = 0
    mask_version: int = 0
    mask_changed: bool = False
    layers: tuple[LayerReport, ...] = ()
    trial: TrialReport | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.round < 1:
            raise LocalError("rounds are counted from 1", seen=self.round)
        if not (0.0 <= self.density <= 1.0 and 0.0 <= self.density_of_all <= 1.0):
            raise LocalError("a density is a share", seen=(self.density, self.density_of_all), expected="0 to 1")

    @property
    def overhead_seconds(self) -> float:
        """What the round took beside the slowest counted client's work and the evaluation."""
        return self.seconds - self.work_seconds - self.evaluation_seconds

    def to_json(self) -> str:
        """One line of rounds.jsonl; a metric that is not finite becomes null."""
        return _ROUND.dump_json(self).decode()

    @classmethod
    def from_json(cls, line: str) -> RoundReport:
        """Read one line of rounds.jsonl. Raises `LocalError`."""
        return _read(_ROUND, line, "rounds.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """Where the run ended: the last evaluation and the last mask."""

    accuracy: float | None
    density: float
    density_of_all: float
    accuracy_last_rounds: float | None
    metrics: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Some rounds added up; the ratios are dense-equivalent bytes for each byte that moved."""

    first_round: int
    rounds: int
    seconds: float
    payload: Traffic
    socket: Traffic | None
    dense_equivalent: Traffic
    payload_ratio: Ratio
    socket_ratio: Ratio | None
    ledger: dict[str, Traffic]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A whole run. Build it with `of`; `q` is the kept share, over which a byte ratio is the codec's merit."""

    name: str
    outcome: Outcome
    final: Final
    rounds: tuple[RoundReport, ...]
    totals: Span
    steady_state: Span | None
    q: float
    accuracy_source: AccuracySource | None
    warnings: tuple[str, ...] = ()
    socket_unavailable: str | None = None
    parameters: int = 0
    prunable: int = 0
    clients: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    pruning_outcome: str = ""
    after_last_round: Traffic = field(default_factory=Traffic)
    flops: FlopsReport | None = None
    flops_unavailable: str | None = None
    client_densities: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        name: str,
        outcome: Outcome,
        rounds: Sequence[RoundReport],
        accuracy_source: AccuracySource | None = None,
        warnings: Sequence[str] = (),
        socket_unavailable: str | None = None,
        parameters: int = 0,
        prunable: int = 0,
        clients: int = 0,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        pruning_outcome: str = "",
        moved: Traffic | None = None,
        flops: FlopsReport | None = None,
        flops_unavailable: str | None = None,
        client_densities: Mapping[str, float] | None = None,
    ) -> RunReport:
        """Everything that follows from the rounds, in their order, and the facts that do not. `moved` is the payload of
        the whole run, where it is known."""
        last = rounds[-1] if rounds else None
        return cls(
            name=name,
            outcome=outcome,
            final=_final(rounds),
            rounds=tuple(rounds),
            totals=_span(rounds),
            steady_state=steady_state(rounds),
            q=last.density_of_all if last else 1.0,
            accuracy_source=accuracy_source,
            warnings=(*warnings, *(f"round {r.round}: {w}" for r in rounds for w in r.warnings)),
            socket_unavailable=socket_unavailable,
            parameters=parameters,
            prunable=prunable,
            clients=clients,
            config=dict(config or {}),
            environment=dict(environment or {}),
            pruning_outcome=pruning_outcome,
            after_last_round=_beyond(moved, rounds),
            flops=flops,
            flops_unavailable=flops_unavailable,
            client_densities=dict(client_densities or {}),
        )

    def to_dict(self) -> dict[str, Any]:
        """The run as plain JSON values; one element of "runs"."""
        value: dict[str, Any] = json.loads(_RUN.dump_json(self))
        return value


def document(runs: Sequence[RunReport], **more: Any) -> dict[str, Any]:
    """What report.json holds: the runs, and whatever else the writer knows, under its own keys."""
    return {"schema": SCHEMA, "runs": [run.to_dict() for run in runs], **more}


def schema() -> dict[str, Any]:
    """The JSON schema of a report.json; further keys may stand beside those it names."""
    return _DOCUMENT.json_schema()


def read_document(text: str, *, name: str) -> tuple[RunReport, ...]:
    """The runs of a report.json; keys that this version does not know are left aside. Raises `LocalError`."""
    return _read(_DOCUMENT, text, name).runs


def _beyond(moved: Traffic | None, rounds: Sequence[RoundReport]) -> Traffic:
    """What no round has counted."""
    counted = Traffic.total(r.payload for r in rounds)
    return Traffic(up=moved.up - counted.up, down=moved.down - counted.down) if moved else Traffic()


def steady_rounds(rounds: Sequence[RoundReport]) -> Sequence[RoundReport]:
    """The rounds from the second after the last mask change on; a new run counts as a change before round 1."""
    change = max((r.round for r in rounds if r.mask_changed), default=0)
    return [r for r in rounds if r.round >= change + ROUNDS_OF_CHANGE]


def steady_state(rounds: Sequence[RoundReport]) -> Span | None:
    """The steady rounds added up; None when there are too few to speak of."""
    steady = steady_rounds(rounds)
    return _span(steady) if len(steady) >= FEWEST_STEADY_ROUNDS else None


def _span(rounds: Sequence[RoundReport]) -> Span:
    payload = Traffic.total(r.payload for r in rounds)
    socket = Traffic.total_if_known(r.socket for r in rounds)
    dense = Traffic.total(r.dense_equivalent for r in rounds)
    kinds = {kind: None for r in rounds for kind in r.ledger}
    return Span(
        first_round=rounds[0].round if rounds else 0,
        rounds=len(rounds),
        seconds=sum(r.seconds for r in rounds),
        payload=payload,
        socket=socket,
        dense_equivalent=dense,
        payload_ratio=Ratio.of(dense, payload),
        socket_ratio=Ratio.of(dense, socket) if socket else None,
        ledger={kind: Traffic.total(r.ledger.get(kind, Traffic()) for r in rounds) for kind in kinds},
    )


def _final(rounds: Sequence[RoundReport]) -> Final:
    scored = [r for r in rounds if r.accuracy is not None]
    last = [r.accuracy for r in scored[-LAST_ROUNDS:] if r.accuracy is not None]
    evaluated = [r for r in rounds if r.metrics]
    return Final(
        accuracy=scored[-1].accuracy if scored else None,
        density=rounds[-1].density if rounds else 1.0,
        density_of_all=rounds[-1].density_of_all if rounds else 1.0,
        accuracy_last_rounds=sum(last) / len(last) if last else None,
        metrics=evaluated[-1].metrics if evaluated else {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    runs: tuple[RunReport, ...]


_ROUND = TypeAdapter(RoundReport)
_RUN = TypeAdapter(RunReport)
_DOCUMENT = TypeAdapter(_Document)


def _read(adapter: TypeAdapter[Value], text: str, name: str) -> Value:
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise LocalError(
            f"{name} is not a report of fedprune: {place}: {first['msg']}",
            next_step="Write it again with `fedprune demo`, or name another run",
        ) from error
