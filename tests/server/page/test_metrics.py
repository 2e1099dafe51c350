"""What Prometheus reads: the names that docs/metrics.md promises, and the figures of the report."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fedprune.traffic import Traffic
from fedprune_server.page.metrics import Exposition
from fedprune_server.page.watching import Watch

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
# Said by a run that is on, and by nothing else.
OF_A_RUN_THAT_IS_ON = {"fedprune_client_bytes_total", "fedprune_client_link_bytes_per_second"}


def scraped(watch: Watch) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and label values, as Prometheus's own parser reads them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(Exposition(watch).text().decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_the_figures_are_those_of_the_rounds(watch: Watch) -> None:
    watch.round(replace(watch.rows[0], round=2, accuracy=0.75, mask_changed=False, layers=(), warnings=("w",)))
    found = scraped(watch)
    assert found["fedprune_round"] == {("one",): 2}
    assert found["fedprune_rounds_planned"] == {("one",): 3}
    assert found["fedprune_accuracy"] == {("one",): 0.75}
    assert found["fedprune_loss"] == {("one",): 1.5}
    assert found["fedprune_payload_bytes_total"] == {("up", "one"): 20, ("down", "one"): 40}
    assert found["fedprune_socket_bytes_total"] == {("up", "one"): 22, ("down", "one"): 42}
    assert found["fedprune_dense_equivalent_bytes_total"][("up", "one")] == 192
    assert found["fedprune_ledger_bytes_total"][("down", "values", "one")] == 40
    assert found["fedprune_seconds_total"] == {("one",): 4.0}
    assert found["fedprune_mask_changes_total"] == {("one",): 1}
    assert found["fedprune_warnings_total"] == {("one",): 1}
    assert found["fedprune_layer_density"] == {("w", "one"): 0.5}


def test_clients_are_counted_by_what_they_do(watch: Watch) -> None:
    found = scraped(watch)
    assert found["fedprune_clients"][("away",)] == 1
    assert found["fedprune_clients"][("waiting",)] == 1
    assert sum(found["fedprune_clients"].values()) == 2
    assert set(found["fedprune_client_silent_seconds"]) == {("here",), ("gone",)}
    assert found["fedprune_phase"][("between runs",)] == 1


def test_what_was_not_measured_is_absent(watch: Watch) -> None:
    watch.rows = [replace(watch.rows[0], accuracy=None, metrics={}, socket=None)]
    found = scraped(watch)
    assert "fedprune_accuracy" not in found
    assert "fedprune_loss" not in found
    assert "fedprune_socket_bytes_total" not in found
    assert found["fedprune_payload_bytes_total"][("up", "one")] == Traffic(up=10).up


def test_the_docs_name_what_is_there_and_nothing_else(watch: Watch) -> None:
    watch.rows = [replace(watch.rows[0], link_bytes_per_s=3.0)]
    promised = set(re.findall(r"`(fedprune_\w+)`", DOCS.read_text(encoding="utf-8")))
    there = {name for name in scraped(watch) if name.startswith("fedprune_")}
    assert promised - OF_A_RUN_THAT_IS_ON == there
