"""What a run leaves behind in its folder: the resolved run file, a line a round, the report, the model, the ledger.

The store is the truth; these files are for people and other programs, and can be written again from it at any time.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fedprune import __version__
from fedprune.codec import encode_mask_set
from fedprune.config import RunConfig
from fedprune.ledger import Direction, Entry, Kind, Ledger
from fedprune.mask import Mask
from fedprune.report import AccuracySource, LayerReport, RoundReport, RunReport, document
from fedprune.sockets import Counters
from fedprune.tensor import Schema
from fedprune.traffic import Traffic
from fedprune_server.closing import Closed, Score
from fedprune_server.events import EndRun
from fedprune_server.versions import Prepared


@dataclass(slots=True, kw_only=True)
class Output:
    """The folder of one run. `on_round` is told of each round that is complete, evaluation included; `on_end` of the
    whole run, when all its files are written."""

    folder: Path
    config: RunConfig
    schema: Schema
    accuracy_source: AccuracySource
    socket_unavailable: str | None
    on_round: Callable[[RoundReport], None]
    on_end: Callable[[RunReport], None]
    clients: int = 0
    rounds: dict[int, RoundReport] = field(default_factory=dict)
    _warnings: list[str] = field(default_factory=list)

    def open(self) -> None:
        """Create the folder and say in it which run it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / "config.toml", self.config.to_toml())
        lines = "".join(row.to_json() + "\n" for row in self.rounds.values())
        _replace(self.folder / "rounds.jsonl", lines)

    def warn(self, text: str) -> None:
        """Something the report must not hide; belongs to the round that is being made."""
        self._warnings.append(text)

    def round(
        self,
        number: int,
        *,
        closed: Closed,
        cohort: Sequence[int],
        entries: Sequence[Entry],
        socket: dict[int, Counters] | None,
        seconds: float,
        transfers: Traffic,
        evaluation_s: float,
    ) -> RoundReport:
        """The report of a round that is about to be committed."""
        mask = closed.prepared.mask
        dense = self.schema.dense_bytes
        row = RoundReport(
            round=number,
            accuracy=_accuracy(closed.score),
            density=mask.density,
            density_of_all=mask.density_of_all,
            seconds=seconds,
            payload=_payload(entries),
            socket=_socket(socket),
            dense_equivalent=Traffic(up=dense * transfers.up, down=dense * transfers.down),
            metrics=_metrics(closed.score),
            ledger=_by_kind(entries),
            clients_asked=len(cohort),
            clients_counted=len(closed.receipts),
            examples=sum(r.examples for r in closed.receipts),
            work_seconds=max((r.work_s for r in closed.receipts), default=0.0),
            evaluation_seconds=evaluation_s,
            model_version=closed.prepared.version.model,
            mask_version=mask.version,
            mask_changed=closed.proposal is not None,
            layers=_layers(mask) if closed.proposal else (),
            warnings=tuple(self._warnings),
        )
        self._warnings.clear()
        self.rounds[number] = row
        return row

    def evaluated(self, number: int, score: Score | None) -> RoundReport:
        """The round's report with what the clients found."""
        row = replace(self.rounds[number], accuracy=_accuracy(score), metrics=_metrics(score))
        self.rounds[number] = row
        return row

    def publish(self, number: int) -> None:
        """The round is complete: a line in rounds.jsonl, and word to whoever watches."""
        row = self.rounds[number]
        with (self.folder / "rounds.jsonl").open("a") as file:
            file.write(row.to_json() + "\n")
        self.on_round(row)

    def keep_mask(self, mask: Mask) -> None:
        """A mask version as a file of its own."""
        masks = self.folder / "masks"
        masks.mkdir(exist_ok=True)
        (masks / f"v{mask.version}.mask").write_bytes(encode_mask_set(mask))

    def ended(self, effect: EndRun, latest: Prepared, entries: Sequence[Entry]) -> RunReport:
        """Write the report, the model and the ledger."""
        report = RunReport.of(
            name=self.config.run.name,
            outcome=effect.outcome,
            rounds=[self.rounds[n] for n in sorted(self.rounds)],
            accuracy_source=self.accuracy_source,
            warnings=(*self._warnings, *([effect.reason] if effect.outcome != "finished" else [])),
            socket_unavailable=self.socket_unavailable,
            parameters=self.schema.parameters,
            prunable=sum(t.size for t in self.schema.prunable),
            clients=self.clients,
            config=self.config.model_dump(mode="json"),
            environment=environment(),
        )
        self._save_model(latest)
        _replace(self.folder / "ledger.csv", Ledger(entries).to_csv())
        _replace(self.folder / "report.json", _json(document([report])))
        self.on_end(report)
        return report

    def _save_model(self, latest: Prepared) -> None:
        metadata = {
            "fedprune": __version__,
            "run": self.config.run.name,
            "version": str(latest.version),
            "density": f"{latest.mask.density:.6f}",
            "mask_sha256": latest.mask.fingerprint,
        }
        path = self.folder / "model.safetensors"
        part = path.with_suffix(".part")
        save_file({name: np.ascontiguousarray(a) for name, a in latest.arrays.items()}, part, metadata=metadata)
        os.replace(part, path)


def environment() -> dict[str, str]:
    """What the figures were seen on."""
    return {
        "fedprune": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": str(os.cpu_count() or 0),
    }


def _payload(entries: Sequence[Entry]) -> Traffic:
    counted = [e for e in entries if e.kind is not Kind.HEARTBEAT]
    return Traffic(
        up=sum(e.bytes for e in counted if e.direction is Direction.UP),
        down=sum(e.bytes for e in counted if e.direction is Direction.DOWN),
    )


def _by_kind(entries: Sequence[Entry]) -> dict[str, Traffic]:
    kinds: dict[str, Traffic] = {}
    for e in entries:
        up = e.bytes if e.direction is Direction.UP else 0
        kinds[e.kind.value] = kinds.get(e.kind.value, Traffic()) + Traffic(up=up, down=e.bytes - up)
    return kinds


def _socket(socket: dict[int, Counters] | None) -> Traffic | None:
    if socket is None:
        return None
    return Traffic(up=sum(c.received for c in socket.values()), down=sum(c.sent for c in socket.values()))


def _layers(mask: Mask) -> tuple[LayerReport, ...]:
    return tuple(
        LayerReport(name=name, size=bits.size, alive=int(np.count_nonzero(bits))) for name, bits in mask.alive.items()
    )


def _accuracy(score: Score | None) -> float | None:
    return _metrics(score).get("accuracy")


def _metrics(score: Score | None) -> dict[str, float | None]:
    found = score.metrics if score else {}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)
