"""The byte table that a coordinator prints."""

from __future__ import annotations

from fedprune.report import RoundReport, RunReport
from fedprune.traffic import Traffic
from fedprune_server.summary import byte_table


def report(rounds: int, *, socket: Traffic | None, accuracy: float | None = 0.9718) -> RunReport:
    rows = [
        RoundReport(
            round=n,
            accuracy=accuracy,
            density=0.1,
            density_of_all=0.12,
            seconds=1.0,
            payload=Traffic(up=100, down=200),
            socket=socket,
            dense_equivalent=Traffic(up=1500, down=1500),
        )
        for n in range(1, rounds + 1)
    ]
    return RunReport.of(name="ward", outcome="finished", rounds=rows)


def test_the_whole_table() -> None:
    assert byte_table(report(10, socket=Traffic(up=125, down=250))).splitlines() == [
        "run ward finished: 10 rounds, accuracy 97.18%, density 10.0%",
        "  bytes, whole run                          up            down",
        "  payload                                1,000           2,000",
        "  socket                                 1,250           2,500",
        "  raw dense                             15,000          15,000",
        "  fewer than raw dense                   12.0x            6.0x",
        "  fewer, from round 2 on                 12.0x            6.0x",
    ]


def test_what_is_not_known_is_left_out() -> None:
    table = byte_table(report(3, socket=None, accuracy=None))
    assert "socket" not in table
    assert "accuracy" not in table
    assert "fewer, from" not in table
    assert "fewer than raw dense                   15.0x            7.5x" in table


def test_a_run_without_a_round_has_a_table_too() -> None:
    lines = byte_table(report(0, socket=None)).splitlines()
    assert lines[0] == "run ward finished: 0 rounds, density 100.0%"
    assert lines[-1].split()[-2:] == ["-", "-"]
