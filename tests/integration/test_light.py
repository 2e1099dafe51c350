"""Light clients are load, not clients; still, what they send must count and cross the socket like any other's."""

from __future__ import annotations

from pathlib import Path

from fedprune_lab.benching import dense_run

TASK = Path(__file__).parents[2] / "bench" / "tasks" / "mlp50k.py"


def test_every_light_client_counts_in_every_round_and_moves_a_whole_model() -> None:
    run = dense_run(TASK, clients=5, rounds=3, light=True)
    assert [row.clients_counted for row in run.rounds] == [5, 5, 5]
    for row in run.rounds[1:]:
        assert row.dense_equivalent.up == row.dense_equivalent.down == 5 * 4 * 50_826
        assert min(row.payload.up, row.payload.down) > 0.5 * row.dense_equivalent.up
