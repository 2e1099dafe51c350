"""Many trials one after another, each with a line that says how to play it again."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fedprune.failpoints import Action
from fedprune_lab.faults.plan import Found, Plan
from fedprune_lab.faults.programs import zygote
from fedprune_lab.faults.scenarios import at_point, random_kills
from fedprune_lab.faults.scripted import look_again_at_once
from fedprune_lab.faults.trial import play

KILLS_A_RUN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A plan, the arguments of `bench/faults.py` that play it again, and whether the coordinator must die in it."""

    again: str
    plan: Plan
    must_die: bool = False


def random_trials(*, first_seed: int, kills: int, asked: bool = False) -> Iterable[Trial]:
    """Enough trials for that many kills, some of which come after the run is over; or, `asked`, for restarts."""
    verb = "restarts" if asked else "random"
    for seed in range(first_seed, first_seed + math.ceil(kills / KILLS_A_RUN)):
        plan = random_kills(seed, kills=KILLS_A_RUN, asked=asked)
        yield Trial(again=f"{verb} --seed {seed} --kills {KILLS_A_RUN}", plan=plan)


def point_trials(names: Iterable[str], *, hits: Iterable[int], action: Action = Action.KILL) -> Iterable[Trial]:
    """A death at each of these points, at each of these passes; the first pass must come."""
    numbers = tuple(hits)
    for name in names:
        for hit in numbers:
            again = f"point {name} --hit {hit} --action {action.value}"
            yield Trial(again=again, plan=at_point(name, action, hit=hit), must_die=hit == 1)


async def campaign(trials: Iterable[Trial], folder: Path, say: Callable[[str], None]) -> list[Found]:
    """Play them all. What a failed one left stays in `folder`."""
    look_again_at_once()
    results = []
    async with zygote() as warm:
        for number, trial in enumerate(trials):
            place = folder / str(number)
            found = await play(trial.plan, warm, place)
            if trial.must_die and not found.deaths:
                found.problems.append("the point was not reached")
            results.append(found)
            verdict = "; ".join(found.problems) or "ok"
            say(f"{trial.again}: {found.deaths} deaths, {found.receipts} receipts, {found.seconds:.1f} s: {verdict}")
            if found.problems:
                say(f"  kept in {place}")
            else:
                shutil.rmtree(place)
    return results
