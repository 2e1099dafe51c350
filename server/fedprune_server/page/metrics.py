"""`/metrics`: a run's figures under plain names, in Prometheus's own format; docs/metrics.md says what each means.

Made from the reports of the rounds and a glance at the coordinator at the moment of the scrape: nothing is counted
twice, and a run that nobody scrapes pays nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from fedprune import __version__
from fedprune.report import RoundReport, RunReport
from fedprune.traffic import Traffic
from fedprune_server.course import Phase
from fedprune_server.now import state
from fedprune_server.page.watching import Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("working", "done", "waiting", "left out", "away", "finished")
PHASES = (*(phase.value for phase in Phase), "between runs")

LAST: dict[str, tuple[str, Callable[[RoundReport], float | None]]] = {
    "round": ("The last committed round.", lambda row: row.round),
    "accuracy": ("Accuracy of the last round; absent without an evaluation.", lambda row: row.accuracy),
    "loss": ("Loss of the last round; absent without an evaluation.", lambda row: row.metrics.get("loss")),
    "density": ("Alive share of the prunable weights.", lambda row: row.density),
    "density_of_all": ("Alive share of all weights.", lambda row: row.density_of_all),
    "round_seconds": ("The last round, from its first assignment to its commit.", lambda row: row.seconds),
    "work_seconds": ("The longest training among its clients.", lambda row: row.work_seconds),
    "evaluation_seconds": ("The coordinator's evaluation in it.", lambda row: row.evaluation_seconds),
    "clients_asked": ("Clients asked in the last round.", lambda row: row.clients_asked),
    "clients_counted": ("Clients whose updates counted in it.", lambda row: row.clients_counted),
    "residual_norm": ("Largest L2 norm of what compression has left out.", lambda row: row.residual_norm),
    "model_version": ("The version that the last round made.", lambda row: row.model_version),
    "mask_version": ("The mask of that version.", lambda row: row.mask_version),
    "slowest_link_bytes_per_second": ("The slowest client of the last round.", lambda row: row.link_bytes_per_s),
}


class RunCollector:
    """What the registry asks at each scrape."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        """All families: of the process, of the run, of its clients."""
        yield gauge("build", "The version of fedprune that runs.", ("version",), [((__version__,), 1)])
        yield gauge("pages", "Live pages that are open.", (), [((), self._watch.feed.pages)])
        yield from self._here()
        if self._watch.latest is not None:
            yield from self._run(self._watch.latest.config.run.name)

    def _here(self) -> Iterator[Metric]:
        coordinator = self._watch.coordinator
        run = coordinator.run
        phase = run.state.phase.value if run else "between runs"
        yield gauge("phase", "1 for what the run does now.", ("phase",), [((p,), p == phase) for p in PHASES])
        states = Counter(state(member, run) for member in coordinator.members)
        yield gauge("clients", "Clients by what they do.", ("state",), [((s,), states[s]) for s in STATES])
        monotonic_s = time.monotonic()
        members = [(m, (m.identity,)) for m in coordinator.members]
        silent = [(labels, monotonic_s - m.last_seen) for m, labels in members]
        yield gauge("client_silent_seconds", "Since a client was last heard.", ("client",), silent)
        share = [(labels, m.step / m.steps if m.steps else 0.0) for m, labels in members]
        yield gauge("client_progress", "Share of its local steps that is done.", ("client",), share)
        if run is not None:
            moved = [(m.identity, run.accounts.moved(m.index)) for m, _ in members]
            yield directions("client_bytes", "Payload a client has moved in this run.", ("client",), moved)
            links = [((m.identity,), rate) for m, _ in members if (rate := run.accounts.links.get(m.index))]
            yield gauge("client_link_bytes_per_second", "Its link in the last round.", ("client",), links)

    def _run(self, name: str) -> Iterator[Metric]:
        watch, rows = self._watch, self._watch.rows
        assert watch.latest is not None
        planned = watch.latest.config.run.rounds
        yield gauge("rounds_planned", "Rounds that the run is to have.", ("run",), [((name,), planned)])
        report = RunReport.of(name=name, outcome="running", rounds=rows)
        for key, (meaning, value) in LAST.items():
            found = value(rows[-1]) if rows else None
            yield gauge(key, meaning, ("run",), [] if found is None else [((name,), found)])
        totals = report.totals
        yield directions("payload_bytes", "Codec frames and messages.", ("run",), [(name, totals.payload)])
        if totals.socket is not None:
            yield directions("socket_bytes", "What crossed the sockets.", ("run",), [(name, totals.socket)])
        dense = [(name, totals.dense_equivalent)]
        yield directions("dense_equivalent_bytes", "What the same transfers weigh raw.", ("run",), dense)
        yield _ledger(name, totals.ledger)
        yield counter("seconds", "Seconds spent in rounds.", ("run",), [((name,), totals.seconds)])
        yield counter("mask_changes", "Masks made.", ("run",), [((name,), sum(row.mask_changed for row in rows))])
        yield counter("warnings", "Warnings in the report.", ("run",), [((name,), len(report.warnings))])
        layers = next((row.layers for row in reversed(rows) if row.layers), ())
        shares = [((name, layer.name), layer.alive / layer.size) for layer in layers]
        yield gauge("layer_density", "Alive share of a tensor, once it was pruned.", ("run", "layer"), shares)


class Exposition:
    """The text of a scrape."""

    def __init__(self, watch: Watch) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(RunCollector(watch))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Everything, as it stands now."""
        return generate_latest(self._registry)


Samples = Iterable[tuple[tuple[str, ...], float]]


def gauge(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A family of values that rise and fall."""
    family = GaugeMetricFamily(f"fedprune_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, meaning: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A family of values that only rise; `_total` is added to its name."""
    family = CounterMetricFamily(f"fedprune_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def directions(name: str, meaning: str, labels: tuple[str, ...], moved: Iterable[tuple[str, Traffic]]) -> Metric:
    """Bytes by the last of `labels` and by direction."""
    samples = [((who, way), getattr(t, way)) for who, t in moved for way in ("up", "down")]
    return counter(name, meaning, (*labels, "direction"), samples)


def _ledger(name: str, ledger: dict[str, Traffic]) -> Metric:
    samples = [((name, kind, way), getattr(t, way)) for kind, t in ledger.items() for way in ("up", "down")]
    return counter("ledger_bytes", "Bytes by what they are for.", ("run", "kind", "direction"), samples)
