"""A coordinator without a run, and what a page has been told of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedprune.codec import encode_mask_set
from fedprune.config import RunConfig
from fedprune.mask import Mask
from fedprune.report import LayerReport, RoundReport
from fedprune.tensor import Schema, TensorSpec
from fedprune.traffic import Traffic
from fedprune_server.coordinator import Coordinator
from fedprune_server.members import Member
from fedprune_server.onlookers import Begun
from fedprune_server.page.feed import Feed
from fedprune_server.page.story import Story
from fedprune_server.page.watching import Watch

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(4, 6)),))


def row(
    number: int, *, accuracy: float | None = 0.5, socket: bool = True, warnings: tuple[str, ...] = ()
) -> RoundReport:
    """A round that moved ten bytes up and twenty down, and pruned "w" to a half."""
    return RoundReport(
        round=number,
        accuracy=accuracy,
        density=0.5,
        density_of_all=0.5,
        seconds=2.0,
        payload=Traffic(up=10, down=20),
        socket=Traffic(up=11, down=21) if socket else None,
        dense_equivalent=Traffic(up=96, down=96),
        metrics={} if accuracy is None else {"accuracy": accuracy, "loss": 1.5},
        ledger={"values": Traffic(up=10, down=20)},
        mask_changed=number == 1,
        mask_version=1,
        layers=(LayerReport(name="w", size=24, alive=12),) if number == 1 else (),
        warnings=warnings,
    )


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """Two members, one of them away; a run with one round behind it, whose mask lies in its folder."""
    coordinator = Coordinator(schema=SCHEMA, frozen_digest="", heartbeat_s=1.0)
    for index, name in enumerate(("here", "gone")):
        coordinator.members.admit(
            Member(index=index, identity=name, task_digest="", frozen_digest=""), own_digest=""
        ).step = 0
    coordinator.attach(coordinator.members.of("here"), "ipv4:1:1")
    (tmp_path / "masks").mkdir()
    bits = np.zeros((4, 6), np.bool_)
    bits[:2] = True
    (tmp_path / "masks" / "v1.mask").write_bytes(encode_mask_set(Mask(schema=SCHEMA, version=1, alive={"w": bits})))
    made = Watch(coordinator=coordinator, feed=Feed(story=Story(epoch="e")))
    config = RunConfig.loads("[run]\nname = 'one'\nrounds = 3\n")
    made.begin(Begun(run_id="one-1", config=config, folder=tmp_path, schema=SCHEMA, done=[row(1)]))
    made.glance()
    return made
