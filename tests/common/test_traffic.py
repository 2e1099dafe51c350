from __future__ import annotations

import pytest

from fedprune.errors import LocalError
from fedprune.traffic import Ratio, Traffic


def test_traffic_adds_up_by_direction() -> None:
    assert Traffic.total([Traffic(up=1, down=2), Traffic(up=10, down=20)]) == Traffic(up=11, down=22)
    assert Traffic(up=3, down=4).both == 7
    assert Traffic.total([]) == Traffic()


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert Traffic.total_if_known([Traffic(up=1), None]) is None
    assert Traffic.total_if_known([Traffic(up=1), Traffic(down=2)]) == Traffic(up=1, down=2)


def test_negative_traffic_is_refused() -> None:
    with pytest.raises(LocalError, match="negative"):
        Traffic(down=-1)


def test_a_ratio_is_baseline_over_actual_and_unknown_over_nothing() -> None:
    ratio = Ratio.of(Traffic(up=100, down=50), Traffic(up=10))
    assert ratio == Ratio(up=10.0, down=None, both=15.0)
