"""The price of exact tensors is said, and a pattern that names nothing is refused before anyone waits."""

from __future__ import annotations

import pytest

from fedprune.config import RunConfig
from fedprune.errors import ConfigError
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_server.exact import exact_note

SCHEMA = Schema(
    tensors=(
        TensorSpec(name="0.weight", shape=(100, 40)),
        TensorSpec(name="1.weight", shape=(10, 100), role=Role.FREE),
        TensorSpec(name="1.mean", shape=(10,), role=Role.BUFFER),
    )
)


def config(*patterns: str) -> RunConfig:
    return RunConfig.loads("", overrides=(f"compression.exact={list(patterns)}",))


def test_it_says_which_tensors_and_how_many_bytes() -> None:
    note = exact_note(config("1.*"), SCHEMA)
    assert "keeps 1.weight lossless: 1,000 of 5,000 weights, about 3.4 kB" in note


def test_without_patterns_there_is_nothing_to_say() -> None:
    assert exact_note(config(), SCHEMA) == ""


@pytest.mark.parametrize("pattern", ["last.*", "1.mean"])
def test_a_pattern_that_matches_no_weights_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"matches no weights .*0\.weight, 1\.weight"):
        exact_note(config("0.*", pattern), SCHEMA)
