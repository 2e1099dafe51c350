"""Work refuses what makes no sense before any data is touched."""

from __future__ import annotations

from typing import Any

import pytest

from fedprune.errors import LocalError
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import EvaluateWork, ReestimateWork, ScoreWork, TrainWork, UploadPlan


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TrainWork, {"epochs": 0}),
        (TrainWork, {"steps": -1}),
        (TrainWork, {"batch_size": 0}),
        (TrainWork, {"learning_rate": float("nan")}),
        (TrainWork, {"proximal": -0.1}),
        (TrainWork, {"distill": 1.0}),
        (TrainWork, {"seed": 1 << 64}),
        (EvaluateWork, {"batch_size": 0}),
        (ScoreWork, {"method": ""}),
        (ScoreWork, {"method": "gradient", "grow": (-1,)}),
        (ScoreWork, {"method": "snip", "keep": (-1,)}),
        (ScoreWork, {"method": "gradient", "grow": (1,), "keep": (1,)}),
        (ScoreWork, {"method": "gradient", "train": TrainWork()}),
        (ReestimateWork, {"batches": -1}),
        (UploadPlan, {"top": 0.0}),
        (UploadPlan, {"momentum": 1.0}),
        (UploadPlan, {"clip_norm": float("inf")}),
    ],
)
def test_nonsense_is_refused_by_name(kind: type[Any], wrong: dict[str, Any]) -> None:
    key, value = list(wrong.items())[-1]
    with pytest.raises(LocalError, match=key) as caught:
        kind(**wrong)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TrainWork, pb.Train),
        (EvaluateWork, pb.Evaluate),
        (ScoreWork, pb.Score),
        (ReestimateWork, pb.Reestimate),
        (UploadPlan, pb.UploadPlan),
    ],
)
def test_values_mirror_their_messages(kind: type[Any], message: Any) -> None:
    fields = [f.name for f in message.DESCRIPTOR.fields if f.name != "plan"]
    assert list(kind.__dataclass_fields__) == fields
