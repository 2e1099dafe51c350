"""Overhead of a round beside that of the fastest peer, in turn: `python bench/peer.py`, a quarter of an hour.

The peer is Flower's gRPC server (`start_server`, deprecated and still shipped), which keeps streams open as fedprune
does and has the least overhead of all systems that were measured. It gets an environment of its own under bench/out at
the first run. It keeps nothing on a disk, checks no digest and has no account of its bytes: what is compared is how
long a round takes beside the training. Both have the same model, data and step; fedprune sends raw float32, as Flower
does. On a machine that is shared, milliseconds say how busy the neighbours were; two systems in turn say more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from fedprune.section import Values
from fedprune_lab.benching import OUT, dense_run, keep
from fedprune_lab.digits import DATA
from fedprune_lab.ports import HOST, Ports

FLOWER = "flwr==1.41.0"
HERE = Path(__file__).parent
ROUNDS = 22  # as many as leave twenty, of both
# What was asked of fedprune over what the peer took where that was measured, in ms: clients -> (asked, seen).
BARS = {2: (15, 7), 8: (40, 27), 100: (500, 490)}
LIGHT_FROM = 100
# So that a hundred interpreters do not start at once.
APART_S = 0.5
LISTENS_S = 60.0
# A client of Flower that fails leaves its server waiting for it.
TURN_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", choices=sorted(BARS), default=[2, 8], help="how many")
    parser.add_argument("--turns", type=int, default=7, help="runs of each system for each number of clients")
    parser.add_argument("--values", choices=("raw", "lossless"), default="raw", help="as fedprune sends them")
    given = parser.parse_args()
    python = _peer_environment()
    table = Table(title="overhead of a round beside Flower's, medians of turns", title_justify="left")
    for heading in ("clients", "fedprune", "Flower", "ratio in turn", "lowest", "highest", "at most"):
        table.add_column(heading, justify="right")
    results = {}
    for clients in given.clients:
        pairs = [_turn(python, clients, given.values, ours_first=turn % 2 == 0) for turn in range(given.turns)]
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        asked, seen = BARS[clients]
        results[str(clients)] = {"ours_and_theirs_s": pairs, "median_ratio": median(ratios), "at_most": asked / seen}
        ours_s, theirs_s = (median(column) for column in zip(*pairs, strict=True))
        cells = (f"{1000 * ours_s:.1f} ms", f"{1000 * theirs_s:.1f} ms", f"{median(ratios):.2f}")
        table.add_row(str(clients), *cells, f"{ratios[0]:.2f}", f"{ratios[-1]:.2f}", f"{asked / seen:.2f}")
    Console().print(table)
    print(f"kept in {keep('peer', {'values': given.values, **results})}")


def _turn(python: Path, clients: int, values: Values, *, ours_first: bool) -> tuple[float, float]:
    """The median overhead of both, in seconds."""
    light = clients >= LIGHT_FROM
    theirs_s = 0.0 if ours_first else _flower(python, clients, light=light)
    run = dense_run(HERE / "tasks" / "mlp50k.py", clients=clients, rounds=ROUNDS, light=light, values=values)
    if ours_first:
        theirs_s = _flower(python, clients, light=light)
    return median(row.overhead_seconds for row in run.rounds[2:]), theirs_s


def _flower(python: Path, clients: int, *, light: bool) -> float:
    quiet = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    command = [str(python), str(HERE / "peers" / "flower.py")]
    with Ports() as ports, contextlib.ExitStack() as started:
        port = str(ports.take())

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*command, *arguments], env=quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        server = start("server", port, str(clients), str(ROUNDS))
        _wait_for(int(port), server)
        for number in range(clients):
            start("light" if light else "client", port, str(clients), str(number), str(DATA))
            if light:
                time.sleep(APART_S)
        print(f"Flower: {clients} clients, {ROUNDS} rounds")
        try:
            said = server.communicate(timeout=TURN_S)[0]
        except subprocess.TimeoutExpired:
            raise SystemExit(
                f"Flower did not end its rounds in {TURN_S:g} s: one of its clients may have failed"
            ) from None
    if server.returncode:
        raise SystemExit(f"Flower's server ended with {server.returncode}")
    overheads_s: list[float] = json.loads(said.splitlines()[-1])
    return median(overheads_s)


def _wait_for(port: int, server: subprocess.Popen[str]) -> None:
    """Until it listens: a client of Flower does not wait for its server."""
    end_s = time.monotonic() + LISTENS_S
    while server.poll() is None and time.monotonic() < end_s:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return
        time.sleep(0.1)
    raise SystemExit("Flower's server does not listen")


def _peer_environment() -> Path:
    """A Python with Flower and what it needs; torch and numpy are those of this one."""
    home = OUT / "peer"
    python = home / "bin" / "python"
    if not (home / "made").exists():
        print(f"installing {FLOWER} into {home}, once")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", FLOWER], check=True)
        places = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        )
        # A folder named in such a file comes behind the environment's own packages.
        Path(places.stdout.strip(), "this_one.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (home / "made").touch()
    return python.absolute()


if __name__ == "__main__":
    main()
