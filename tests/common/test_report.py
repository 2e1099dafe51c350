"""Everything in report.json that is computed from the rounds, against sums made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.errors import LocalError
from fedprune.report import RoundReport, RunReport, document, read_document, steady_rounds
from fedprune.traffic import Ratio, Traffic

SOCKET = Traffic(up=11, down=21)


def made(
    number: int,
    *,
    accuracy: float | None = 0.5,
    changed: bool = False,
    density: float = 1.0,
    socket: Traffic | None = SOCKET,
    warnings: tuple[str, ...] = (),
) -> RoundReport:
    return RoundReport(
        round=number,
        accuracy=accuracy,
        density=density,
        density_of_all=density,
        seconds=2.0,
        payload=Traffic(up=10, down=20),
        socket=socket,
        dense_equivalent=Traffic(up=100, down=400),
        metrics={} if accuracy is None else {"accuracy": accuracy, "loss": 1.0},
        ledger={"values": Traffic(up=9, down=20), "control": Traffic(up=1)},
        mask_changed=changed,
        warnings=warnings,
    )


def run(rounds: Sequence[RoundReport]) -> RunReport:
    return RunReport.of(name="x", outcome="finished", rounds=rounds)


def test_totals_are_the_sums_of_the_rounds_with_their_ratios() -> None:
    totals = run([made(1), made(2)]).totals
    assert (totals.first_round, totals.rounds, totals.seconds) == (1, 2, 4.0)
    assert totals.payload == Traffic(up=20, down=40)
    assert totals.socket == Traffic(up=22, down=42)
    assert totals.dense_equivalent == Traffic(up=200, down=800)
    assert totals.payload_ratio == Ratio(up=10.0, down=20.0, both=1000 / 60)
    assert totals.socket_ratio == Ratio(up=200 / 22, down=800 / 42, both=1000 / 64)
    assert totals.ledger == {"values": Traffic(up=18, down=40), "control": Traffic(up=2)}


def test_one_round_without_a_socket_figure_leaves_the_whole_without_one() -> None:
    totals = run([made(1), made(2, socket=None)]).totals
    assert totals.socket is None
    assert totals.socket_ratio is None


def test_the_steady_state_begins_with_the_second_round_after_the_last_mask_change() -> None:
    rounds = [made(n, changed=n in (3, 5)) for n in range(1, 16)]
    assert [r.round for r in steady_rounds(rounds)] == list(range(7, 16))
    steady = run(rounds).steady_state
    assert steady is not None
    assert (steady.first_round, steady.rounds) == (7, 9)


def test_a_run_without_a_mask_change_is_steady_from_its_second_round() -> None:
    assert [r.round for r in steady_rounds([made(n) for n in range(1, 5)])] == [2, 3, 4]


def test_seven_rounds_are_no_steady_state_and_eight_are() -> None:
    assert run([made(n) for n in range(1, 9)]).steady_state is None
    assert run([made(n) for n in range(1, 10)]).steady_state is not None


def test_the_final_accuracy_is_the_last_one_measured() -> None:
    rounds = [made(n, accuracy=n / 10) for n in range(1, 8)] + [made(8, accuracy=None, density=0.1)]
    final = run(rounds).final
    assert final.accuracy == 0.7
    assert final.accuracy_last_rounds == pytest.approx(0.5)
    assert final.density == 0.1
    assert final.metrics == {"accuracy": 0.7, "loss": 1.0}


def test_a_run_without_rounds_has_a_report_all_the_same() -> None:
    report = RunReport.of(name="x", outcome="failed", rounds=[])
    assert report.totals.rounds == 0
    assert report.final.accuracy is None
    assert report.steady_state is None
    json.dumps(report.to_dict(), allow_nan=False)


def test_warnings_of_rounds_are_told_with_their_round() -> None:
    report = RunReport.of(name="x", outcome="finished", rounds=[made(3, warnings=("late",))], warnings=["odd"])
    assert report.warnings == ("odd", "round 3: late")


def test_the_kept_share_is_that_of_the_last_round() -> None:
    assert run([made(1), made(2, density=0.25)]).q == 0.25


def test_overhead_is_what_neither_work_nor_evaluation_took() -> None:
    parts = RoundReport(
        round=1,
        density=1.0,
        density_of_all=1.0,
        seconds=3.0,
        work_seconds=2.0,
        evaluation_seconds=0.75,
        payload=Traffic(),
        dense_equivalent=Traffic(),
    )
    assert parts.overhead_seconds == 0.25


def test_the_promised_keys_are_there_with_their_shapes() -> None:
    (one,) = document([run([made(1)])])["runs"]
    assert {"name", "final", "rounds", "totals"} <= one.keys()
    assert {"accuracy", "density"} <= one["final"].keys()
    (first,) = one["rounds"]
    assert {"round", "accuracy", "density", "seconds"} <= first.keys()
    for key in ("payload", "socket", "dense_equivalent"):
        assert first[key].keys() == {"up", "down"}
    assert document([run([made(1, socket=None)])])["runs"][0]["rounds"][0]["socket"] is None


@given(st.floats(allow_nan=True, allow_infinity=True), st.booleans())
def test_what_is_written_reads_back_and_is_plain_json(loss: float, changed: bool) -> None:
    first = RoundReport.from_json(made(1, changed=changed).to_json().replace('"loss":1.0', f'"loss":{_json(loss)}'))
    report = run([first, made(2, socket=None)])
    text = json.dumps(document([report]), allow_nan=False)
    assert read_document(text, name="report.json") == (report,)


def _json(value: float) -> str:
    return json.dumps(value) if abs(value) < float("inf") else "null"


def test_a_metric_that_is_not_finite_becomes_null() -> None:
    line = RoundReport(
        round=1,
        density=1.0,
        density_of_all=1.0,
        seconds=0.0,
        payload=Traffic(),
        dense_equivalent=Traffic(),
        metrics={"loss": float("nan")},
    ).to_json()
    assert json.loads(line)["metrics"] == {"loss": None}
    assert RoundReport.from_json(line).metrics == {"loss": None}


def test_keys_of_a_later_version_are_left_aside() -> None:
    value = document([run([made(1)])], later={"a": 1})
    value["runs"][0]["rounds"][0]["later"] = 3
    assert read_document(json.dumps(value), name="report.json") == (run([made(1)]),)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "Invalid JSON"),
        ('{"runs": [{"name": 3}]}', "runs.0.name"),
        ('{"totals": {}}', "runs: Field required"),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(LocalError, match=place):
        read_document(text, name="runs/x/report.json")


def test_a_round_line_that_is_cut_off_is_refused() -> None:
    with pytest.raises(LocalError, match=r"rounds\.jsonl"):
        RoundReport.from_json(made(1).to_json()[:-3])


@pytest.mark.parametrize("wrong", [{"round": 0}, {"density": 1.2}, {"density_of_all": -0.1}])
def test_a_round_refuses_what_cannot_be(wrong: dict[str, float]) -> None:
    good = {"round": 1, "density": 1.0, "density_of_all": 1.0, "seconds": 1.0} | wrong
    with pytest.raises(LocalError):
        RoundReport(**good, payload=Traffic(), dense_equivalent=Traffic())  # type: ignore[arg-type]
