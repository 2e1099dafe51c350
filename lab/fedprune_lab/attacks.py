"""Clients that lie, for benches of the rules that are to stand them.

The attackers are the strongest kind: they know each other and what every honest client sent in the round, and answer
last. On the wire they are ordinary clients with ordinary updates: frames are decoded, bent and encoded again between
sealing and sending. Needs full participation, one process, and lossless uploads under one mask.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedprune import wire
from fedprune.applying import Array, apply_frame, weights_of
from fedprune.codec import Limits, UpdateReader, encode_update
from fedprune.framing import seal
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.download import Apply
from fedprune_client.replica import Replica
from fedprune_client.transport import Link

Vector = NDArray[np.float32]
Attack = Callable[[Vector, NDArray[np.float32]], Vector]

FLIP, BOOST, DEVIATIONS, INNER = -4.0, 10.0, 1.5, 0.5


def sign_flip(own: Vector, honest: NDArray[np.float32]) -> Vector:
    """The attacker's own update, backwards and four times as long (Li et al., 2019)."""
    return np.float32(FLIP) * own


def scaling(own: Vector, honest: NDArray[np.float32]) -> Vector:
    """The attacker's own update, ten times as long (Bagdasaryan et al., 2020)."""
    return np.float32(BOOST) * own


def little_is_enough(own: Vector, honest: NDArray[np.float32]) -> Vector:
    """ALIE: 1.5 standard deviations of the honest off their mean, at each place (Baruch et al., 2019)."""
    return np.asarray(honest.mean(0) - np.float32(DEVIATIONS) * honest.std(0), np.float32)


def inner_product(own: Vector, honest: NDArray[np.float32]) -> Vector:
    """IPM: against the mean of the honest, half as long, so that it does not stand out (Xie et al., 2020)."""
    return np.asarray(np.float32(-INNER) * honest.mean(0), np.float32)


ATTACKS: dict[str, Attack] = {
    "sign flip": sign_flip,
    "scaling": scaling,
    "ALIE": little_is_enough,
    "IPM": inner_product,
}


@dataclass(slots=True, kw_only=True)
class Gang:
    """The attackers, the first `attackers` of `clients` by index, and what they know: the honest updates by run and
    version, each [weights]. `attack` may change from run to run; None: nobody lies."""

    clients: int
    attackers: int
    attack: dict[str, Attack | None]
    _heard: defaultdict[tuple[str, int], list[Vector]] = field(default_factory=lambda: defaultdict(list))
    _all_heard: defaultdict[tuple[str, int], asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    def attack_of(self, run_id: str) -> Attack | None:
        """The attack on a run, whose id is its name and a random end."""
        return self.attack[run_id.rpartition("-")[0]]

    def hear(self, run_id: str, version: int, update: Vector) -> None:
        """An honest client has sent its update."""
        heard = self._heard[run_id, version]
        heard.append(update)
        if len(heard) == self.clients - self.attackers:
            self._all_heard[run_id, version].set()

    async def honest(self, run_id: str, version: int) -> NDArray[np.float32]:
        """All honest updates of a round [clients, weights], once they are sent."""
        await self._all_heard[run_id, version].wait()
        return np.stack(self._heard[run_id, version])


class BentLink(Link):
    """The connection of a client that may be one of the gang."""

    def __init__(self, gang: Gang, server: str, name: str, say: Callable[[str], None]) -> None:
        super().__init__(server, name, say=say)
        self._gang = gang
        self._index = 0
        self._replica: Replica | None = None

    async def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        reply = await super().join(request)
        self._index = reply.client_index
        return reply

    async def pull(self, run_id: str, replica: Replica, want: Version, apply: Apply) -> None:
        self._replica = replica
        await super().pull(run_id, replica, want, apply)

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        attack = self._gang.attack_of(begin.run_id)
        if attack is not None:
            own = self._update(frame)
            if self._index >= self._gang.attackers:
                self._gang.hear(begin.run_id, begin.version.model, own)
            else:
                honest = await self._gang.honest(begin.run_id, begin.version.model)
                frame = self._bent(begin, attack(own, honest))
                sealed = seal(frame)
                begin.size, begin.sha256 = sealed.size, sealed.sha256
        return await super().submit(begin, frame, chunk_bytes=chunk_bytes)

    def _update(self, frame: bytes) -> Vector:
        """What a frame changes in the weights, end to end."""
        held = self._held
        arrays: dict[str, Array] = {name: array.copy() for name, array in held.weights.items()}
        limits = Limits.of_update(held.schema, held.mask)
        reader = UpdateReader(frame, schema=held.schema, mask=held.mask, base=held.weights, limits=limits)
        assert held.mask is not None
        apply_frame(arrays, reader, held.mask)
        before: dict[str, Array] = dict(held.weights)
        return np.concatenate([(arrays[s.name] - before[s.name]).reshape(-1) for s in weights_of(held.schema)])

    def _bent(self, begin: pb.Begin, update: Vector) -> bytes:
        held = self._held
        arrays: dict[str, Array] = dict(held.weights)
        start = 0
        for spec in weights_of(held.schema):
            step = update[start : start + spec.size].reshape(spec.shape)
            arrays[spec.name] = np.asarray(arrays[spec.name] + step, np.float32)
            start += spec.size
        return encode_update(
            arrays, schema=held.schema, mask=held.mask, base=held.weights, version=wire.version(begin.version)
        )

    @property
    def _held(self) -> Replica:
        assert self._replica is not None, "who submits has pulled"
        return self._replica
