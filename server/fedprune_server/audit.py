"""Who did what, for later: events of the run's hash chain, and updates under their senders' signatures.

The chain says that nothing was changed afterwards; the signatures say that the coordinator did not make the updates up.
An entry is JSON with the time (UTC), what happened, and who it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedprune import wire
from fedprune.errors import IdentityError, RoleError
from fedprune.pki.keys import identity_of, is_signed, public_key
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.interceptors import Caller
from fedprune_server.store.reading import AUDIT_TOPIC
from fedprune_server.store.verify import opened, state_of

# An ECDSA signature of P-256 in DER is 72 bytes at most.
MAX_SIGNATURE_BYTES = 80


def entry(what: str, **facts: object) -> str:
    """One event as the chain keeps it."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": at, "what": what} | facts, sort_keys=True, default=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """An announced update under its sender's signature, as the chain will keep it if it is accepted."""

    who: Caller
    manifest: str
    signature: bytes

    def entry(self, *, round_: int, work: str) -> str:
        """The event: what was accepted, and into which round. The round is the coordinator's word; the client signs the
        assignment and the version."""
        signature = self.signature.hex()
        sender = {"identity": self.who.identity, "name": self.who.name}
        return entry("update", **sender, round=round_, work=work, manifest=self.manifest, signature=signature)


def signed(who: Caller, begin: pb.Begin) -> Vouched | None:
    """What vouches for an announced update; None without TLS. Raises `RoleError` when it is not signed by the caller's
    key."""
    if not who.spki:
        return None
    text = wire.manifest(begin)
    key = public_key(who.spki, party=who.party)
    if len(begin.signature) > MAX_SIGNATURE_BYTES or not is_signed(key, begin.signature, text.encode()):
        raise RoleError(
            "the update is not signed by the key of this connection",
            party=who.party,
            seen=f"{len(begin.signature)} bytes of signature",
            next_step="Use the same fedprune on both sides",
        )
    return Vouched(who=who, manifest=text, signature=begin.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The events of a run in their order, and what is wrong with the signatures among them."""

    events: list[dict[str, Any]]
    problems: list[str]


def read(run_dir: Path) -> Audit:
    """The audit of a run's directory. Raises `StoreError` when there is no run; `fedprune verify` checks its chain."""
    with closing(opened(state_of(run_dir))) as database:
        rows = database.execute("SELECT body FROM ledger WHERE topic = ? ORDER BY sequence", (AUDIT_TOPIC,))
        return examined(json.loads(row["body"]) for row in rows)


def line(event: dict[str, Any]) -> str:
    """An event for a terminal."""
    shown = dict(event)
    if event["what"] == "update":
        shown |= {key: json.loads(event["manifest"])[key] for key in ("run", "version", "sha256", "examples")}
    hidden = ("at", "what", "manifest", "signature", "spki")
    facts = ", ".join(f"{key} {value}" for key, value in shown.items() if key not in hidden and value != "")
    return f"{event['at']}  {event['what']}: {facts}"


def examined(bodies: Iterator[str]) -> Audit:
    """Events from the chain's bodies, with every signature checked against the key that its sender joined with."""
    found = Audit(events=[], problems=[])
    keys: dict[str, bytes] = {}
    for body in bodies:
        event = json.loads(body)
        found.events.append(event)
        if event["what"] == "joined" and event.get("spki"):
            keys[event["identity"]] = bytes.fromhex(event["spki"])
        if event["what"] == "update" and (problem := _problem(event, keys)):
            found.problems.append(f"update of {event.get('name')}: {problem}")
    return found


def _problem(event: dict[str, Any], keys: dict[str, bytes]) -> str:
    spki = keys.get(event["identity"])
    if spki is None:
        return "its sender never joined"
    try:
        key = public_key(spki, party=event["identity"])
        signature = bytes.fromhex(event["signature"])
    except (IdentityError, ValueError) as error:
        return str(error)
    if identity_of(key) != event["identity"]:
        return "the key is not the one of this identity"
    return "" if is_signed(key, signature, event["manifest"].encode()) else "the signature is not its sender's"
