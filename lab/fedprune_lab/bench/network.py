"""One training behind links of several speeds, dense, pruned, pruned and compressed: what each link makes of it. Pure.

The seconds are those of the rounds, the bytes the kernel's; a link's share is held against what the line could have
carried one way, because a client does not send while it receives.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from fedprune.compression_section import CompressionSection
from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune.errors import LocalError
from fedprune.pruning_section import PruningSection
from fedprune.report import RoundReport, RunReport
from fedprune.traffic import Traffic
from fedprune_lab import figures
from fedprune_lab.link import rate_text

MODES = ("dense", "pruned", "compressed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run behind one link. Bytes and seconds are for one client and round, in the median round of the steady
    state (the last third of the run, where density has settled). `raw_line_s` is what four bytes for each float, both
    ways, take the line at least: computed, not measured. `to_accuracy_s` is None where the accuracy was not reached."""

    rate_bit_per_s: float
    delay_s: float
    mode: str
    density: float
    accuracy: float | None
    up_bytes: float
    down_bytes: float
    round_s: float
    line_s: float
    raw_line_s: float
    link_share: float
    run_s: float
    run_bytes: int
    to_accuracy_s: float | None


def configs(*, rounds: int, clients: int, density: float, seed: int = 1) -> list[RunConfig]:
    """The three runs: alike but for pruning and compression."""
    pruned = PruningSection(density=density, every=3)
    shapes = {
        "dense": (PruningSection(), CompressionSection()),
        "pruned": (pruned, CompressionSection()),
        "compressed": (pruned, CompressionSection(up="int8", down="int8")),
    }
    return [
        RunConfig(
            run=RunSection(name=name, rounds=rounds, seed=seed),
            clients=ClientsSection(expect=clients, min_clients=clients),
            training=TrainingSection(epochs=2, learning_rate=0.1, held_out=0.0),
            pruning=pruning,
            compression=compression,
        )
        for name, (pruning, compression) in shapes.items()
    ]


def row(run: RunReport, *, rate_bit_per_s: float, delay_s: float, target: float) -> Row:
    """What one run was behind this link; `target` is the accuracy to reach."""
    steady = run.rounds[-max(1, len(run.rounds) // 3) :]
    clients = max(1, run.clients)
    up, down = (median(getattr(moved(r), way) for r in steady) / clients for way in ("up", "down"))
    raw = median(r.dense_equivalent.both for r in steady) / clients
    round_s = median(r.seconds for r in steady)
    line_s = 8 * (up + down) / rate_bit_per_s
    return Row(
        rate_bit_per_s=rate_bit_per_s,
        delay_s=delay_s,
        mode=run.name,
        density=run.final.density,
        accuracy=run.final.accuracy_last_rounds,
        up_bytes=up,
        down_bytes=down,
        round_s=round_s,
        line_s=line_s,
        raw_line_s=8 * raw / rate_bit_per_s,
        link_share=line_s / round_s if round_s else 0.0,
        run_s=run.totals.seconds,
        run_bytes=Traffic.total(moved(r) for r in run.rounds).both,
        to_accuracy_s=seconds_to(run.rounds, target),
    )


def moved(row: RoundReport) -> Traffic:
    """The kernel's bytes, the payload where the kernel does not tell."""
    return row.socket or row.payload


def seconds_to(rounds: Sequence[RoundReport], accuracy: float) -> float | None:
    """Seconds of training until a round's model had this accuracy; None when none had."""
    spent = 0.0
    for one in rounds:
        spent += one.seconds
        if one.accuracy is not None and one.accuracy >= accuracy:
            return spent
    return None


def table(rows: Iterable[Row]) -> Iterable[str]:
    """The rows as lines for a terminal."""
    yield (
        f"{'link':<9}{'run':<12}{'density':>8}{'accuracy':>10}{'up':>11}{'down':>11}{'line':>9}{'round':>9}"
        f"{'link used':>11}{'raw line':>10}{'to target':>11}{'whole run':>11}"
    )
    for r in rows:
        target = figures.UNKNOWN if r.to_accuracy_s is None else figures.seconds(r.to_accuracy_s)
        yield (
            f"{rate_text(r.rate_bit_per_s):<9}{r.mode:<12}{figures.percent(r.density):>8}{figures.percent(r.accuracy):>10}"
            f"{figures.size(round(r.up_bytes)):>11}{figures.size(round(r.down_bytes)):>11}{figures.seconds(r.line_s):>9}"
            f"{figures.seconds(r.round_s):>9}{figures.percent(r.link_share):>11}{figures.seconds(r.raw_line_s):>10}"
            f"{target:>11}{figures.seconds(r.run_s):>11}"
        )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """All rows, one line each, a key of `Row` a column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(r) for r in rows)


def check_modes(runs: Sequence[RunReport]) -> None:
    """Raise `LocalError` unless these are the three runs, whole."""
    seen = tuple(run.name for run in runs)
    if seen != MODES or any(run.outcome != "finished" for run in runs):
        raise LocalError(
            "a bench behind a link needs its three runs", seen=[(r.name, r.outcome) for r in runs], expected=MODES
        )
