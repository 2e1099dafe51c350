"""What a run leaves behind in its folder: the resolved run file, a line a round, the report, the model, the ledger.

The store is the truth; these files are for people and other programs, and can be written again from it at any time.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from fedprune import __version__
from fedprune.codec import encode_mask_set
from fedprune.config import RunConfig
from fedprune.errors import StoreError
from fedprune.flops import Cost
from fedprune.idle import idle_warnings, shrinkers
from fedprune.ledger import Entry, Ledger
from fedprune.mask import Mask
from fedprune.report import AccuracySource, LayerReport, RoundReport, RunReport, document
from fedprune.schema_file import NAME as SCHEMA
from fedprune.schema_file import to_json
from fedprune.sockets import Counters
from fedprune.tensor import Schema
from fedprune.traffic import Traffic
from fedprune_server import rows
from fedprune_server.autoplan import Choice
from fedprune_server.closing import Closed, Remeasured
from fedprune_server.deciding import Decision
from fedprune_server.events import EndRun
from fedprune_server.prepared import Prepared
from fedprune_server.proposal import Proposal
from fedprune_server.store import Store, digests_of

# What is the store itself, or goes on growing after the run.
UNRECORDED = ("state", "log.jsonl")


@dataclass(slots=True, kw_only=True)
class Output:
    """The folder of one run. `on_round` is told of each round that is complete, evaluation included; `on_end` of the
    whole run, when all its files are written. `count` gives the operations of the model, or why they are not known."""

    folder: Path
    config: RunConfig
    schema: Schema
    accuracy_source: AccuracySource
    socket_unavailable: str | None
    on_round: Callable[[RoundReport], None]
    on_end: Callable[[RunReport], None]
    at: Callable[[str], None]
    count: Callable[[], Cost | str]
    clients: int = 0
    rounds: dict[int, RoundReport] = field(default_factory=dict)
    _warnings: list[str] = field(default_factory=list)
    _first: tuple[LayerReport, ...] = ()

    def open(self, *, unpublished: int | None) -> None:
        """Create the folder and say in it which run it is and what was done; the round `unpublished` is still to be
        evaluated. All methods raise `StoreError` when the disk does not take the files."""
        lines = "".join(row.to_json() + "\n" for row in self.published(unless=unpublished))
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._replace("config.toml", self.config.to_toml())
            self._replace(SCHEMA, to_json(self.schema))
            self._replace("rounds.jsonl", lines)

    def published(self, *, unless: int | None) -> list[RoundReport]:
        """The rounds that are complete, in order; `unless` one that is still to be evaluated."""
        return [self.rounds[n] for n in sorted(self.rounds) if n != unless]

    def warn(self, text: str) -> None:
        """Something the report must not hide; belongs to the round that is being made."""
        self._warnings.append(text)

    def explain_first(self, proposal: Proposal) -> None:
        """Why the mask that was chosen before anybody trained looks as it does; told with the first round."""
        self._first = rows.layers(proposal)

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
        choice: Choice | None = None,
        link_bytes_per_s: float | None = None,
    ) -> RoundReport:
        """The report of a round that is about to be committed."""
        mask = closed.prepared.mask
        payload = rows.payload(entries)
        dense = Traffic(up=self.schema.dense_bytes * transfers.up, down=self.schema.dense_bytes * transfers.down)
        row = RoundReport(
            round=number,
            accuracy=rows.accuracy(closed.score),
            density=mask.density,
            density_of_all=mask.density_of_all,
            seconds=seconds,
            payload=payload,
            socket=rows.socket_bytes(socket),
            dense_equivalent=dense,
            metrics=rows.metrics(closed.score),
            ledger=rows.by_kind(entries),
            clients_asked=len(cohort),
            clients_counted=len(closed.receipts),
            examples=sum(r.examples for r in closed.receipts),
            work_seconds=max((r.work_s for r in closed.receipts), default=0.0),
            evaluation_seconds=evaluation_s,
            residual_norm=rows.residual_norm(closed),
            plan=str(choice.rung) if choice else "",
            plan_reason=choice.reason if choice else "",
            link_bytes_per_s=link_bytes_per_s,
            model_version=closed.prepared.version.model,
            mask_version=mask.version,
            mask_changed=closed.proposal is not None,
            layers=rows.layers(closed.proposal) if closed.proposal else self._first,
            warnings=(*self._warnings, *self._idle(payload, dense)),
        )
        self._warnings.clear()
        self._first = ()
        self.rounds[number] = row
        return row

    def _idle(self, payload: Traffic, dense: Traffic) -> tuple[str, ...]:
        """What moved in this round was under the mask of the round before."""
        plan = self.config.compression
        density = self.rounds[max(self.rounds)].density if self.rounds else 1.0
        return idle_warnings(
            payload,
            dense,
            up=shrinkers(density=density, values=plan.up, top=plan.top),
            down=shrinkers(density=density, values=plan.down),
        )

    def remeasured(self, number: int, found: Remeasured) -> RoundReport:
        """The round's report with the version whose statistics were measured anew, and what the coordinator found of it."""
        row = replace(
            self.rounds[number],
            accuracy=rows.accuracy(found.score),
            metrics=rows.metrics(found.score),
            evaluation_seconds=found.evaluation_s,
        )
        if found.prepared is not None:
            row = replace(row, model_version=found.prepared.version.model)
        self.rounds[number] = row
        return row

    def decided(self, number: int, decision: Decision) -> RoundReport:
        """The round's report with what the clients found, and what became of a pruning step."""
        row = self.rounds[number]
        if decision.reported:
            row = replace(row, accuracy=rows.accuracy(decision.score), metrics=rows.metrics(decision.score))
        if decision.record is not None:
            row = replace(row, trial=rows.trial(decision.record))
        if decision.record is not None and decision.record.decision == "abandoned":
            stands = self.rounds.get(decision.record.round - 1)
            row = replace(row, accuracy=stands.accuracy if stands else None, metrics=stands.metrics if stands else {})
        if decision.undone is not None:
            # What the run stands on from here; the accuracy stays that of the version the round made.
            mask = decision.undone.mask
            row = replace(
                row,
                density=mask.density,
                density_of_all=mask.density_of_all,
                model_version=decision.undone.version.model,
                mask_version=mask.version,
                mask_changed=True,
                layers=rows.restored(mask, self._last_layers(number)),
            )
        self.rounds[number] = row
        return row

    def _last_layers(self, number: int) -> tuple[LayerReport, ...]:
        """What the last change of the mask up to this round made of the layers."""
        made = (self.rounds[n].layers for n in sorted(self.rounds, reverse=True) if n <= number)
        return next((layers for layers in made if layers), ())

    def publish(self, number: int) -> None:
        """The round is complete: a line in rounds.jsonl, and word to whoever watches."""
        row = self.rounds[number]
        with self._writing():
            with (self.folder / "rounds.jsonl").open("a") as file:
                file.write(row.to_json() + "\n")
            self.at("round-published")
        self.on_round(row)

    def keep_mask(self, mask: Mask) -> None:
        """A mask version as a file of its own."""
        with self._writing():
            (self.folder / "masks").mkdir(exist_ok=True)
            (self.folder / "masks" / f"v{mask.version}.mask").write_bytes(encode_mask_set(mask))

    def ended(
        self,
        effect: EndRun,
        latest: Prepared,
        entries: Sequence[Entry],
        *,
        pruning_outcome: str,
        client_densities: Mapping[str, float],
    ) -> RunReport:
        """Write the report, the model and the ledger."""
        counted = self.count()
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
            pruning_outcome=pruning_outcome,
            moved=rows.payload(entries),
            client_densities=client_densities,
            flops=None if isinstance(counted, str) else counted.report(latest.mask),
            flops_unavailable=counted if isinstance(counted, str) else None,
        )
        with self._writing():
            self._save_model(latest)
            self._replace("ledger.csv", Ledger(entries).to_csv())
            self._replace("report.json", _json(document([report])))
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
        arrays = {name: np.require(a, requirements="C") for name, a in latest.arrays.items()}
        self._replace("model.safetensors", save(arrays, metadata=metadata))

    def record(self, store: Store, run_id: str) -> None:
        """Enter the digests of the finished files into the store, for `verify`."""
        with self._writing():
            store.record_files(run_id, digests_of(self.folder, but=UNRECORDED))

    def _replace(self, name: str, content: str | bytes) -> None:
        """The whole file or the one before it, whatever happens."""
        part = self.folder / f"{name}.part"
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        self.at("file-before-rename")
        os.replace(part, self.folder / name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                "cannot write the files of the run",
                party=str(self.folder),
                seen=error.strerror or str(error),
                next_step="Free space or mend the disk, then start the coordinator again: it goes on where it was",
            ) from error


def environment() -> dict[str, str]:
    """What the figures were seen on."""
    return {
        "fedprune": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cores": str(os.cpu_count() or 0),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
