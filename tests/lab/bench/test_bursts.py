"""Reading busy seconds from a trace of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune_lab.bench.bursts import Busy, busy
from fedprune_lab.bench.wire import DOWN, TRACE, UP


def trace(*frames: tuple[float, float, int, int, int]) -> NDArray[Any]:
    return np.array(list(frames), TRACE)


def seen(frames: NDArray[Any], *, client: int = 1, from_s: float = 0.0, until_s: float = 99.0) -> Busy:
    return busy(frames, client=client, from_s=from_s, until_s=until_s, pause_s=0.1)


def test_a_line_is_busy_while_something_is_on_its_way_either_way() -> None:
    frames = trace((1.0, 1.5, 1, DOWN, 100), (1.2, 1.7, 1, DOWN, 100), (1.6, 2.0, 1, UP, 60), (9.0, 9.3, 1, UP, 1000))
    found = seen(frames)
    assert found.seconds == pytest.approx(1.0 + 0.3)
    assert (found.up_bytes, found.down_bytes, found.frames) == (1060, 200, 4)


def test_a_short_pause_counts_and_a_long_one_is_somebody_at_work() -> None:
    assert seen(trace((1.0, 1.5, 1, UP, 1), (1.55, 2.0, 1, UP, 1))).seconds == pytest.approx(1.0)
    assert seen(trace((1.0, 1.5, 1, UP, 1), (1.7, 2.0, 1, UP, 1))).seconds == pytest.approx(0.8)


def test_frames_that_overtake_each_other_are_no_pause() -> None:
    frames = trace((1.0, 3.0, 1, UP, 1), (1.1, 1.2, 1, DOWN, 1), (2.5, 2.6, 1, DOWN, 1))
    assert seen(frames).seconds == pytest.approx(2.0)
    assert seen(frames[::-1]).seconds == pytest.approx(2.0)


def test_other_clients_and_other_times_are_left_out() -> None:
    frames = trace((0.9, 1.0, 1, UP, 10), (1.0, 1.1, 2, UP, 500), (1.1, 1.2, 1, UP, 10), (4.9, 5.0, 1, UP, 70))
    assert seen(frames, until_s=5.0).up_bytes == 20
    assert seen(frames, client=2).up_bytes == 500
    assert seen(frames, from_s=2.0).up_bytes == 70


def test_a_line_on_which_nothing_moved_was_not_busy() -> None:
    assert seen(trace()) == Busy(seconds=0.0, up_bytes=0, down_bytes=0, frames=0)
