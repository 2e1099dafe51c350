"""Reading busy seconds from a trace of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedprune_lab.bench.bursts import Busy, busy
from fedprune_lab.bench.wire import DOWN, TRACE, UP


def trace(*frames: tuple[float, int, int, int]) -> NDArray[Any]:
    return np.array(list(frames), TRACE)


def seen(frames: NDArray[Any], *, client: int = 1, from_s: float = 0.0, until_s: float = 99.0) -> Busy:
    return busy(frames, client=client, from_s=from_s, until_s=until_s, delay_s=0.1, gap_s=0.5)


def test_silence_beyond_the_gap_is_no_work_of_the_network() -> None:
    frames = trace((1.0, 1, DOWN, 100), (1.4, 1, DOWN, 100), (1.7, 1, UP, 60), (9.0, 1, UP, 1000), (9.2, 1, UP, 1000))
    found = seen(frames)
    assert found.seconds == pytest.approx(0.7 + 0.1 + 0.2 + 0.1)  # two trains, each a delay long before it arrives
    assert (found.up_bytes, found.down_bytes, found.frames) == (2060, 200, 5)


def test_other_clients_and_other_times_are_left_out() -> None:
    frames = trace((1.0, 1, UP, 10), (1.1, 2, UP, 500), (1.2, 1, UP, 10), (5.0, 1, UP, 70))
    assert seen(frames, until_s=5.0).up_bytes == 20
    assert seen(frames, client=2).up_bytes == 500
    assert seen(frames, from_s=2.0).up_bytes == 70


def test_a_line_on_which_nothing_moved_was_not_busy() -> None:
    assert seen(trace()) == Busy(seconds=0.0, up_bytes=0, down_bytes=0, frames=0)
