"""Clients come and go: when the shards are given out, who may work, and what waits for whom. Cells of `rounds.py`."""

from __future__ import annotations

from dataclasses import replace

from fedprune_server.course import Course, Phase
from fedprune_server.events import ClearTimer, Event, Freeze, GraceOver, Greet, Joined, Left, Say, SetTimer, Settled
from fedprune_server.opening import Step, next_round, waiting


def join(state: Course, event: Event) -> Step:
    assert isinstance(event, Joined)
    rules = state.rules
    connected = state.connected | {event.client}
    away = ClearTimer(f"grace-{event.client}")
    if not state.shards:
        state = replace(state, connected=connected)
        greet = Greet(event.client, True, False)
        if rules.expect and len(connected) >= rules.expect:
            opened, effects = freeze_shards(state)
            return opened, (away, greet, *effects)
        timer = () if rules.expect else (SetTimer("settle", rules.settle_s, Settled()),)
        return state, (away, greet, *timer, Say(waiting(state)))
    shards = state.shards
    if event.client not in shards and rules.late == "admit":
        shards = (*shards, event.client)
    state = replace(state, connected=connected, shards=shards)
    if back := state.returning and state.complete:
        state = replace(state, returning=False)
    working = state.waits and event.client in state.pending
    greet = Greet(event.client, event.client in shards, working)
    if state.phase is not Phase.GATHERING:
        return state, (away, greet, ClearTimer("settle")) if back else (away, greet)
    if state.complete:
        opened, effects = next_round(state)
        return opened, (away, greet, ClearTimer("settle"), *effects)
    return state, (away, greet, SetTimer("settle", rules.grace_s, Settled()), Say(waiting(state)))


def leave(state: Course, event: Event) -> Step:
    assert isinstance(event, Left)
    state = replace(state, connected=state.connected - {event.client})
    if event.client in state.pending and state.waits:
        timer = SetTimer(f"grace-{event.client}", state.rules.grace_s, GraceOver(event.client))
        return state, (timer, Say(f"client {event.client} is away; waiting {state.rules.grace_s:g} s for it"))
    return state, ()


def settle(state: Course, event: Event) -> Step:
    if state.shards:
        return next_round(replace(state, returning=False))
    if len(state.connected) < max(1, state.rules.min_clients):
        return state, (Say(waiting(state)),)
    return freeze_shards(state)


def give_up(state: Course, event: Event) -> Step:
    """Who has not come back to this process by now is not waited for any more."""
    return replace(state, returning=False), ()


def freeze_shards(state: Course) -> Step:
    shards = tuple(sorted(state.connected))
    opened, effects = next_round(replace(state, shards=shards))
    return opened, (ClearTimer("settle"), Freeze(shards), *effects)
