"""The demo as a user runs it: real processes, real sockets, and three independent counts of the same bytes.

One run of the whole thing, looked at from many sides.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters are read on Linux"),
    pytest.mark.timeout(600),
]

CLIENTS = 4
FEDPRUNE = [sys.executable, "-c", "from fedprune_lab.cli import main; raise SystemExit(main())"]
# A shell starts what it puts into the background with SIGINT ignored, and this suite may run there.
HEEDING = ["env", "--default-signal=INT", *FEDPRUNE]
# Of one client in one round: pulling the model and submitting the update; the work stream is a call as well.
CALLS_A_ROUND = 3

Run = Mapping[str, Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder, and the object that `--json` printed."""
    out = tmp_path_factory.mktemp("runs")
    command = [*FEDPRUNE, "demo", "--json", "--relay", "--rounds", "22", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "demo", json.loads(done.stdout)


@pytest.fixture(params=["dense", "pruned"])
def run(request: pytest.FixtureRequest, demo: tuple[Path, dict[str, Any]]) -> Run:
    found: Run = next(r for r in demo[1]["runs"] if r["name"] == request.param)
    return found


def test_what_was_printed_is_what_was_kept(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = demo
    assert json.loads((folder / "report.json").read_text()) == printed
    for name in ("dense", "pruned"):
        kept = {path.name for path in (folder / name).iterdir()}
        assert {"config.toml", "report.json", "rounds.jsonl", "ledger.csv", "masks", "model.safetensors"} <= kept
        lines = (folder / name / "rounds.jsonl").read_text().splitlines()
        assert [json.loads(line)["round"] for line in lines] == list(range(1, 23))


def test_every_client_took_part_in_every_round(run: Run) -> None:
    assert [r["clients_counted"] for r in run["rounds"]] == [CLIENTS] * 22
    assert run["outcome"] == "finished"
    assert run["warnings"] == []


def test_it_learns_and_ends_at_its_density(run: Run) -> None:
    assert run["final"]["accuracy"] > 0.93
    assert run["final"]["density"] == pytest.approx(1.0 if run["name"] == "dense" else 0.1, abs=1e-4)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_kernel_and_relay_agree_within_a_thousandth(demo: tuple[Path, dict[str, Any]], direction: str) -> None:
    kernel = sum(r["totals"]["socket"][direction] for r in demo[1]["runs"])
    assert kernel == pytest.approx(demo[1]["relay"][direction], rel=0.001)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_payload_and_socket_agree_in_every_round(run: Run, direction: str) -> None:
    for row in run["rounds"]:
        payload, socket = row["payload"][direction], row["socket"][direction]
        assert abs(socket - payload) <= 0.01 * payload + 512 * CALLS_A_ROUND * CLIENTS, row["round"]


def test_the_ledger_sums_to_the_payload(run: Run) -> None:
    for row in run["rounds"]:
        for direction in ("up", "down"):
            counted = sum(t[direction] for kind, t in row["ledger"].items() if kind != "heartbeat")
            assert counted == row["payload"][direction]


def test_a_dense_round_asks_for_the_raw_model_once_each_way_and_client(run: Run) -> None:
    raw = 4 * run["parameters"] * CLIENTS
    assert {r["dense_equivalent"]["up"] for r in run["rounds"]} == {raw}
    first, *later = run["rounds"]
    assert first["dense_equivalent"]["down"] == 0, "the first model is drawn at both ends"
    assert {r["dense_equivalent"]["down"] for r in later} == {raw}


def test_the_network_feels_the_pruning(demo: tuple[Path, dict[str, Any]]) -> None:
    found = demo[1]["comparison"]
    assert found["measured_on"] == "socket"
    steady = found["steady_state"]
    assert steady["rounds"] >= 8
    for direction in ("up", "down"):
        assert steady["raw"][direction] >= 9.5
        assert steady["same_codec"][direction] >= 0.93 / found["q"]


def test_ctrl_c_ends_all_of_it_and_says_so(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*HEEDING, "demo", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        shown = [demo.stdout.readline() for _ in range(4)]
        assert shown[-1].startswith("round   2/40")
        demo.send_signal(signal.SIGINT)
        rest, words = demo.stdout.read(), demo.stderr.read()
    assert "nothing is left running" in rest
    assert f"kept: the rounds so far, in {tmp_path / 'demo'}" in words
    assert demo.returncode == 130
