"""What a training between hosts refuses; the hosts themselves need root, and the bench is where they are used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedprune.errors import ConfigError
from fedprune_lab.bench import network
from fedprune_lab.bench.hosted import trained
from fedprune_lab.link import Link

PLAIN = Link(rate_bit_per_s=1e7, delay_s=0.04)


@pytest.mark.parametrize("worse", [{"jitter_s": 0.01}, {"reset_every_s": 30.0}, {"cut_every_s": 30.0}])
def test_what_the_switch_cannot_do_is_refused_and_nothing_is_started(tmp_path: Path, worse: dict[str, float]) -> None:
    configs = network.configs(rounds=1, clients=1, density=0.1)
    with pytest.raises(ConfigError, match=r"between hosts a link has a rate and a delay .* --hosts"):
        trained(configs, task=tmp_path / "task.py", link=replace(PLAIN, **worse), clients=1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
