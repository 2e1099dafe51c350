"""The promises of docs/reliability.md, tried on real processes: kills at random instants and at every named failpoint.

Prints a line for each trial with the arguments that play it again, and at the end what was found; exit code 1 when a
promise was broken.

Example: python bench/faults.py random --kills 200
         python bench/faults.py points --each 3
         python bench/faults.py random --seed 17 --kills 5
         python bench/faults.py point commit-version-before-commit --hit 2
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fedprune.failpoints import Action
from fedprune_lab.faults.campaign import Trial, campaign, point_trials, random_trials
from fedprune_server.failpoints import POINTS


def trials(asked: argparse.Namespace) -> Iterable[Trial]:
    """What the command line asks for."""
    if asked.verb == "random":
        return random_trials(first_seed=asked.seed, kills=asked.kills)
    action = Action(asked.action)
    if asked.verb == "point":
        return point_trials([asked.name], hits=[asked.hit], action=action)
    names = [n for n, p in POINTS.items() if action is Action.KILL or p.fails]
    return point_trials(names, hits=range(1, asked.each + 1), action=action)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    at_random = verbs.add_parser("random", help="kills at random instants")
    at_random.add_argument("--kills", type=int, default=40)
    at_random.add_argument("--seed", type=int, default=0)
    points = verbs.add_parser("points", help="deaths at every named failpoint")
    points.add_argument("--each", type=int, default=3)
    point = verbs.add_parser("point", help="a death at one failpoint")
    point.add_argument("name", choices=sorted(POINTS), metavar="NAME")
    point.add_argument("--hit", type=int, default=1)
    for verb in (points, point):
        verb.add_argument("--action", choices=["kill", "enospc", "eio"], default="kill")
    return parser.parse_args()


def main() -> int:
    """Play and sum up."""
    folder = Path(tempfile.mkdtemp(prefix="fedprune-faults-"))
    results = asyncio.run(campaign(trials(arguments()), folder, lambda line: print(line, flush=True)))
    broken = sum(bool(found.problems) for found in results)
    deaths, receipts = sum(f.deaths for f in results), sum(f.receipts for f in results)
    print(f"{len(results)} runs, {deaths} deaths of a coordinator, {receipts} receipts: {broken} runs broke a promise")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
