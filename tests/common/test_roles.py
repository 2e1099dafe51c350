"""Natural roles by the kind of layer, and the run file's patterns on top of them."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from fedprune.errors import ConfigError
from fedprune.tensor import Role, Schema
from fedprune.torch import assign_roles, signature


def names(schema: Schema, role: Role) -> list[str]:
    return [t.name for t in schema.of(role)]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3))


def test_an_mlp_keeps_its_classifier_whole() -> None:
    assert names(signature(mlp()), Role.PRUNABLE) == ["0.weight", "1.weight"]


@pytest.mark.parametrize(("inputs", "first"), [(1, []), (4, []), (5, ["0.weight"])])
def test_a_first_convolution_on_few_channels_is_whole(inputs: int, first: list[str]) -> None:
    model = nn.Sequential(nn.Conv2d(inputs, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 3))
    assert names(signature(model), Role.PRUNABLE) == [*first, "1.weight"]


def test_norms_are_free_and_their_statistics_buffers_and_counters() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.LayerNorm((2, 5)), nn.Linear(5, 3))
    schema = signature(model)
    assert names(schema, Role.PRUNABLE) == ["0.weight"]
    assert names(schema, Role.BUFFER) == ["1.running_mean", "1.running_var"]
    assert names(schema, Role.COUNTER) == ["1.num_batches_tracked"]
    assert schema["1.num_batches_tracked"].shape == ()
    assert "2.weight" in names(schema, Role.FREE)


def test_a_norm_at_the_end_does_not_pass_for_the_classifier() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), nn.LayerNorm((1, 4)))
    assert names(signature(model), Role.PRUNABLE) == ["0.weight"]


class Language(nn.Module):
    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.positions = nn.Parameter(torch.zeros(1, 8, 6))
        self.mix = nn.MultiheadAttention(6, 2)
        self.core = nn.GRU(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.words.weight


def test_embeddings_and_positions_are_whole_and_recurrent_and_attention_matrices_are_not() -> None:
    schema = signature(Language(tied=False))
    expected = ["mix.in_proj_weight", "mix.out_proj.weight", "core.weight_ih_l0", "core.weight_hh_l0"]
    assert names(schema, Role.PRUNABLE) == expected
    assert {"words.weight", "positions", "head.weight"} <= set(names(schema, Role.FREE))


def test_a_tied_classifier_travels_once_and_no_other_layer_is_whole_in_its_place() -> None:
    schema = signature(Language(tied=True))
    assert "head.weight" not in schema
    assert schema["words.weight"].role is Role.FREE
    assert names(schema, Role.PRUNABLE)[-1] == "core.weight_hh_l0"


def test_patterns_protect_and_lift() -> None:
    schema = assign_roles(signature(mlp()), protect=["0.*"], prune=["2.weight", "1.bias"])
    assert names(schema, Role.PRUNABLE) == ["1.weight", "1.bias", "2.weight"]
    assert [t.name for t in schema] == [t.name for t in signature(mlp())]


def test_a_pattern_without_a_match_is_named_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"pruning.protect .*'head.\*'.*0.bias, 0.weight"):
        assign_roles(signature(mlp()), protect=["head.*"], prune=[])


def test_buffers_can_be_neither_pruned_nor_protected() -> None:
    schema = signature(nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(3), last=nn.Linear(3, 2))))
    with pytest.raises(ConfigError, match="matches no weights"):
        assign_roles(schema, protect=[], prune=["norm.running_mean"])


def test_contradicting_patterns_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"both name a tensor \(got 1.weight\)"):
        assign_roles(signature(mlp()), protect=["1.*"], prune=["*.weight"])
