"""What a terminal shows and what a log gets, read from a console that records."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from fedprune.report import RoundReport
from fedprune_lab.lines import round_line
from fedprune_lab.view import LineView, LiveView, open_view, rounds_table

MakeRound = Callable[..., RoundReport]


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=110, color_system=None, legacy_windows=False), text


def test_a_terminal_gets_the_live_table_and_a_pipe_gets_lines() -> None:
    assert isinstance(open_view(console(terminal=True)[0]), LiveView)
    assert isinstance(open_view(console(terminal=False)[0]), LineView)


def test_a_line_says_all_there_is_to_a_round(make_round: MakeRound) -> None:
    assert round_line(make_round(3, moved=40, density=0.125), 40) == (
        "round   3/40  accuracy  90.3 %  density  12.5 %  up     40 B  down     40 B  "
        "raw dense  2.00 kB  25.0x fewer  250 ms"
    )


def test_without_socket_figures_the_payload_is_shown(make_round: MakeRound) -> None:
    assert "up     30 B" in round_line(make_round(3, moved=40, socket=False), 40)


def test_a_pipe_gets_one_line_for_each_event_without_escape_codes(make_round: MakeRound) -> None:
    out, text = console(terminal=False)
    view = open_view(out)
    view.say("starting 4 clients [of 4]")
    view.begin("dense", 2)
    view.round(make_round(1))
    view.round(make_round(2))
    view.close()
    lines = text.getvalue().splitlines()
    assert lines[:2] == ["starting 4 clients [of 4]", "dense: 2 rounds"]
    assert [line[:11] for line in lines[2:]] == ["round   1/2", "round   2/2"]
    assert "\x1b" not in text.getvalue()


def test_the_table_keeps_the_latest_rounds_and_says_what_comes_next(make_round: MakeRound) -> None:
    out, text = console(terminal=True)
    view = open_view(out)
    view.begin("dense", 20)
    for number in range(1, 16):
        view.round(make_round(number, moved=100 + number))
    view.close()
    last_frame = text.getvalue().rsplit("dense, 20 rounds", 1)[1]
    assert "115 B" in last_frame
    assert "104 B" in last_frame
    assert "103 B" not in last_frame
    assert "round 16 of 20" in last_frame
    assert "socket up" in last_frame


def test_the_table_says_payload_where_the_kernel_does_not_tell(make_round: MakeRound) -> None:
    out, text = console(terminal=True)
    view = open_view(out)
    view.begin("dense", 20)
    view.round(make_round(1, socket=False))
    view.close()
    assert "payload up" in text.getvalue()


def test_80_characters_are_enough_for_all_of_it(make_round: MakeRound) -> None:
    text = io.StringIO()
    row = replace(make_round(1000, moved=999_900), seconds=754.0)
    Console(file=text, width=80).print(rounds_table([row], title="dense"))
    assert "…" not in text.getvalue()
    assert "12 min 34 s" in text.getvalue()


def test_a_view_shows_run_after_run_and_may_be_closed_twice(make_round: MakeRound) -> None:
    out, text = console(terminal=True)
    view = open_view(out)
    view.say("starting")
    view.begin("dense", 1)
    view.round(make_round(1))
    view.say("folding")
    view.begin("pruned", 1)
    view.close()
    view.close()
    assert "starting" in text.getvalue()
    assert "pruned, 1 rounds" in text.getvalue()


def test_the_clients_stand_below_the_table_while_it_lives(make_round: MakeRound) -> None:
    out, text = console(terminal=True)
    view = open_view(out)
    view.begin("dense", 20)
    view.round(make_round(1))
    client = {"name": "client-1", "state": "working", "step": 3, "steps": 12}
    view.clients({"time": 1.0, "round": 2, "clients": {"0": client}})
    assert "client-1" in text.getvalue()
    assert "round 2 of 20, about 5 s left" in text.getvalue()
    view.close()
    assert "client-1" not in text.getvalue().rsplit("dense, 20 rounds", 1)[1]
