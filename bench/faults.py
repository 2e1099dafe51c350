"""The promises of docs/reliability.md, tried on real processes: kills at random instants and at every named failpoint.

Prints a line for each trial with the arguments that play it again, and at the end what was found; exit code 1 when a
promise was broken.

Example: python bench/faults.py random --kills 200
         python bench/faults.py restarts --kills 100
         python bench/faults.py points --each 3
         python bench/faults.py clients --kills 100
         python bench/faults.py fencing --trials 100
         python bench/faults.py links
         python bench/faults.py replays --count 10000
         python bench/faults.py damage --flips 10000 --rows 1000
         python bench/faults.py random --seed 17 --kills 5
         python bench/faults.py point commit-version-before-commit --hit 2
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fedprune.failpoints import Action
from fedprune_lab.faults import clients, damage, fencing, links, replays
from fedprune_lab.faults.campaign import Trial, campaign, point_trials, random_trials
from fedprune_lab.faults.plan import RUN, Found
from fedprune_lab.faults.programs import zygote
from fedprune_lab.faults.scenarios import ELSEWHERE
from fedprune_server.failpoints import POINTS


def trials(asked: argparse.Namespace) -> Iterable[Trial]:
    """What the command line asks for."""
    if asked.verb in ("random", "restarts"):
        return random_trials(first_seed=asked.seed, kills=asked.kills, asked=asked.verb == "restarts")
    action = Action(asked.action)
    if asked.verb == "point":
        return point_trials([asked.name], hits=[asked.hit], action=action)
    names = [n for n, p in POINTS.items() if n not in ELSEWHERE and (action is Action.KILL or p.fails)]
    return point_trials(names, hits=range(1, asked.each + 1), action=action)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    at_random = verbs.add_parser("random", help="kills at random instants")
    restarts = verbs.add_parser("restarts", help="SIGTERM at random instants, and a start by the same command")
    for verb in (at_random, restarts):
        verb.add_argument("--kills", type=int, default=40)
        verb.add_argument("--seed", type=int, default=0)
    points = verbs.add_parser("points", help="deaths at every named failpoint")
    points.add_argument("--each", type=int, default=3)
    point = verbs.add_parser("point", help="a death at one failpoint")
    point.add_argument("name", choices=sorted(POINTS), metavar="NAME")
    point.add_argument("--hit", type=int, default=1)
    for verb in (points, point):
        verb.add_argument("--action", choices=["kill", "enospc", "eio"], default="kill")
    at_clients = verbs.add_parser("clients", help="kills of clients at random instants")
    at_clients.add_argument("--kills", type=int, default=100)
    at_clients.add_argument("--seed", type=int, default=0)
    fenced = verbs.add_parser("fencing", help="a coordinator is stopped, another one takes over, the first wakes up")
    fenced.add_argument("--trials", type=int, default=100)
    verbs.add_parser("links", help="uploads over links that break")
    again = verbs.add_parser("replays", help="what was submitted, submitted again")
    again.add_argument("--count", type=int, default=10_000)
    damaged = verbs.add_parser("damage", help="bits and rows that change in what a run left behind")
    damaged.add_argument("--flips", type=int, default=10_000)
    damaged.add_argument("--rows", type=int, default=1_000)
    return parser.parse_args()


async def kill_clients(*, kills: int, first_seed: int, folder: Path) -> int:
    """Runs whose clients are killed, until there were enough kills; 1 when a promise was broken."""
    done = sealed = broken = 0
    async with zygote() as warm:
        for seed in itertools.count(first_seed):
            found = await clients.play(clients.Plan(seed=seed, kills=min(8, kills - done)), warm, folder / str(seed))
            done, sealed, broken = done + found.kills, sealed + found.sealed, broken + bool(found.problems)
            verdict = "; ".join(found.problems) or "ok"
            print(
                f"clients --seed {seed} --kills 8: {found.kills} kills, {found.sealed} with a sealed result, "
                f"{found.sent_again_bytes} bytes sent again, {found.seconds:.1f} s: {verdict}",
                flush=True,
            )
            if done >= kills:
                break
    print(f"{done} clients killed, {sealed} of them with a sealed result: {broken} runs broke a promise")
    return int(broken > 0)


# Outside transactions, where another one can take over; unless another thread is in one just then.
STOPPED_AT = ("assignments-sent", "upload-sealed", "update-checked", "round-folded", "version-adopted")


async def fence(trials: int, folder: Path) -> int:
    """Stop a coordinator and let another one take over; 1 when the first wrote anything more."""
    broken = written = 0
    async with zygote() as warm:
        for number, point in enumerate(itertools.islice(itertools.cycle(STOPPED_AT), trials)):
            found = await fencing.play(point, warm, folder / str(number))
            broken += bool(found.problems)
            written += found.in_a_write
            where = f"{point}, another thread in a write" if found.in_a_write else point
            print(f"stopped at {where}: {'; '.join(found.problems) or 'ok'}", flush=True)
    print(
        f"{trials} coordinators stopped, {trials - written} taken over from and woken up, {written} ended because they "
        f"held the lock: {broken} runs broke a promise"
    )
    return int(broken > 0)


LINKS = {
    "two clients, resets": links.Plan(clients=2, rounds=3, breaks=5, bytes_per_s=600e3),
    "two clients, resets and silence": links.Plan(clients=2, rounds=2, breaks=4, silent_s=5.0, bytes_per_s=600e3),
    "11 M parameters over 10 Mbit/s": links.Plan(inputs=2800, hidden=3900, every_s=8.0, bytes_per_s=1.25e6),
}


async def break_links(folder: Path) -> int:
    """Play the links; 1 when an upload was lost, doubled or cost more than a chunk a break."""
    broken = 0
    async with zygote() as warm:
        for number, (name, plan) in enumerate(LINKS.items()):
            found = await links.play(plan, warm, folder / str(number))
            if found.extra_chunks > found.breaks * plan.clients:
                found.problems.append("more than a chunk for each break")
            broken += bool(found.problems)
            verdict = "; ".join(found.problems) or "ok"
            cost = f"{found.extra_chunks:.2f} chunks of 512 KiB extra"
            print(f"{name}: {found.breaks} breaks, {cost}, {found.seconds:.1f} s: {verdict}", flush=True)
    return int(broken > 0)


async def replayed(count: int, folder: Path) -> tuple[Found, Counter[str], Path]:
    """A finished run with so many replays: what it broke, how many there were of each way, and what it left behind."""
    async with zygote() as warm:
        found, done = await replays.play(count, warm, folder / "replays")
    return found, done, folder / "replays" / "runs" / RUN


def submit_again(count: int, folder: Path) -> int:
    """Replay; 1 when one had an effect."""
    found, done, _ = asyncio.run(replayed(count, folder))
    ways = ", ".join(f"{number} {way}" for way, number in sorted(done.items()))
    verdict = "; ".join(found.problems[:5]) or "no effect"
    print(f"{done.total()} replays ({ways}), half of them after a restart: {verdict}")
    return int(bool(found.problems))


def damage_a_run(flips: int, rows: int, folder: Path) -> int:
    """Damage a finished run; 1 when something was not found."""
    found, _, run = asyncio.run(replayed(0, folder))
    if found.problems:
        print(f"no run to damage: {'; '.join(found.problems)}")
        return 1
    seen = damage.play(run, flips=flips, rows=rows, folder=folder)
    print(f"{seen.flips} flipped bits, {seen.rows} rows deleted or swapped: {len(seen.missed)} not found")
    print(*seen.missed[:20], sep="\n", end="\n" if seen.missed else "")
    return int(bool(seen.missed))


def main() -> int:
    """Play and sum up."""
    folder = Path(tempfile.mkdtemp(prefix="fedprune-faults-"))
    asked = arguments()
    if asked.verb == "links":
        return asyncio.run(break_links(folder))
    if asked.verb == "clients":
        return asyncio.run(kill_clients(kills=asked.kills, first_seed=asked.seed, folder=folder))
    if asked.verb == "fencing":
        return asyncio.run(fence(asked.trials, folder))
    if asked.verb == "replays":
        return submit_again(asked.count, folder)
    if asked.verb == "damage":
        return damage_a_run(asked.flips, asked.rows, folder)
    results = asyncio.run(campaign(trials(asked), folder, lambda line: print(line, flush=True)))
    broken = sum(bool(found.problems) for found in results)
    deaths, receipts = sum(f.deaths for f in results), sum(f.receipts for f in results)
    print(f"{len(results)} runs, {deaths} deaths of a coordinator, {receipts} receipts: {broken} runs broke a promise")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
