"""How a coordinator stands at this moment, as plain JSON values: the run's phase, and each client.

Read from what the coordinator holds anyway; asking changes nothing.
"""

from __future__ import annotations

from typing import Any

from fedprune_server.coordinator import Coordinator
from fedprune_server.members import Member
from fedprune_server.run import Run


def now(coordinator: Coordinator, *, monotonic_s: float, time_s: float) -> dict[str, Any]:
    """`time`, `phase`, `round`, `waiting_for`, `cohort` and `clients` by index; the two clocks are read together."""
    run = coordinator.run
    offset_s = time_s - monotonic_s
    return {
        "time": round(time_s, 3),
        "phase": run.state.phase.value if run else "between runs",
        "round": run.state.round if run else 0,
        "waiting_for": run.waiting_for if run else "",
        "cohort": len(run.state.cohort) if run else 0,
        "accepted": len(run.state.accepted) if run else 0,
        "clients": {str(m.index): _client(m, run, offset_s) for m in coordinator.members},
    }


def _client(member: Member, run: Run | None, offset_s: float) -> dict[str, Any]:
    """Between two runs without what it moved: a page goes on showing what it knows."""
    found: dict[str, Any] = {
        "name": member.identity,
        "state": state(member, run),
        "step": member.step,
        "steps": member.steps,
        # Whole seconds: every heartbeat would be a change otherwise.
        "seen": round(member.last_seen + offset_s),
    }
    if run is not None:
        moved = run.accounts.moved(member.index)
        found |= {"up": moved.up, "down": moved.down, "link": run.accounts.links.get(member.index)}
        if (density := run.density_of(member.index)) is not None:
            found["density"] = density
    return found


def state(member: Member, run: Run | None) -> str:
    """What a client does: working, done (with its round), waiting, left out, away, or finished (told to go home)."""
    if not member.connected:
        return "finished" if member.state == "done" else "away"
    if run is None or not run.state.shards:
        return "waiting"
    if member.index not in run.state.shards:
        return "left out"
    if run.state.waits and member.index in run.state.pending:
        return "working"
    return "done" if member.index in run.state.accepted else "waiting"
