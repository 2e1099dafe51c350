"""Both dense baselines, by hand: raw is 1000 bytes each way a round, the dense run moves 500, the pruned one 40."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fedprune.report import RunReport
from fedprune.traffic import Ratio
from fedprune_lab.comparison import compare

MakeRun = Callable[..., RunReport]


def test_the_steady_state_is_held_against_the_same_rounds_of_the_dense_run(
    make_dense: MakeRun, make_pruned: MakeRun
) -> None:
    found = compare(make_dense(), make_pruned())
    assert found.measured_on == "socket"
    steady = found.steady_state
    assert steady is not None
    assert (steady.first_round, steady.rounds) == (4, 9)
    assert steady.raw == Ratio(up=25.0, down=25.0, both=25.0)
    assert steady.same_codec == Ratio(up=12.5, down=12.5, both=12.5)


def test_the_whole_run_counts_the_rounds_before_pruning_too(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    whole = compare(make_dense(), make_pruned()).whole_run
    moved = 2 * 500 + 10 * 40
    assert whole.rounds == 12
    assert whole.raw.up == pytest.approx(12_000 / moved)
    assert whole.same_codec is not None
    assert whole.same_codec.down == pytest.approx(6_000 / moved)


def test_the_codecs_merit_is_what_the_kept_share_does_not_explain(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    found = compare(make_dense(), make_pruned())
    assert found.q == 0.125
    assert found.codec_merit == 12.5 * 0.125


def test_accuracy_is_compared_over_the_last_rounds(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    gap = compare(make_dense(12), make_pruned(10)).accuracy_gap
    assert gap == pytest.approx(0.002)


def test_where_one_run_has_no_socket_figures_payload_is_compared_with_payload(
    make_dense: MakeRun, make_pruned: MakeRun
) -> None:
    found = compare(make_dense(socket=False), make_pruned())
    assert found.measured_on == "payload"
    assert found.steady_state is not None
    assert found.steady_state.raw.up == pytest.approx(1000 / 30)
    assert found.steady_state.same_codec is not None
    assert found.steady_state.same_codec.up == pytest.approx(490 / 30)


def test_a_shorter_dense_run_is_no_baseline_of_the_same_codec(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    found = compare(make_dense(9), make_pruned(12))
    assert found.steady_state is not None
    assert found.steady_state.same_codec is None
    assert found.codec_merit is None


def test_without_a_steady_state_there_is_no_saving_in_it(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    assert compare(make_dense(), make_pruned(6)).steady_state is None


def test_it_is_plain_json(make_dense: MakeRun, make_pruned: MakeRun) -> None:
    value = compare(make_dense(), make_pruned()).to_dict()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["codec_merit"] == 12.5 * 0.125
