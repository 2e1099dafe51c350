"""How soon commands answer that do no work: `--help`, `list` and `doctor`, each a process of its own, from start to end.

They take turns, so that a busy moment of the machine does not fall on one of them alone. The list shows a folder with
two runs, as a demo leaves it.

Example: python bench/answers.py --times 15
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedprune.config import RunConfig
from fedprune_lab.benching import keep

FEDPRUNE = [sys.executable, "-c", "from fedprune_lab.cli import main; raise SystemExit(main())"]
ASKED = (("--help",), ("list",), ("doctor", "--help"), ("doctor", "server"), ("doctor", "client"))


def took_s(words: tuple[str, ...], folder: Path) -> float:
    """Seconds of one command, its start included. Raises where it fails."""
    began_s = time.monotonic()
    subprocess.run([*FEDPRUNE, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began_s


def two_runs(folder: Path) -> None:
    """What `list` reads of a run: its file and its rounds."""
    for name in ("dense", "pruned"):
        run = folder / "runs" / "demo" / name
        run.mkdir(parents=True)
        (run / "config.toml").write_text(RunConfig().to_toml())
        row = {"round": 1, "accuracy": 0.9, "density": 1.0, "payload": {"up": 1, "down": 1}, "socket": None}
        (run / "rounds.jsonl").write_text((json.dumps(row) + "\n") * 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=15, help="how often each is asked")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two_runs(folder)
        for words in ASKED:
            # The first of each reads the files from the disk.
            took_s(words, folder)
        for _ in range(options.times):
            for words in ASKED:
                seconds.setdefault(" ".join(words), []).append(took_s(words, folder))
    for words_, found in seconds.items():
        print(f"fedprune {words_:<14} {statistics.median(found):.2f} s, {min(found):.2f} to {max(found):.2f}")
    print(f"kept in {keep('answers', {'seconds': seconds})}")


if __name__ == "__main__":
    main()
