"""A run that leaves out more than it learns says so."""

from __future__ import annotations

import numpy as np

from fedprune_server.rows import stall_warning

MODEL = {"w": np.full((3, 3), 2.0, np.float32), "seen": np.array(9)}


def test_a_residual_smaller_than_the_model_is_no_news() -> None:
    assert stall_warning(0.0, MODEL) is None
    assert stall_warning(6.0, MODEL) is None


def test_a_residual_larger_than_the_model_is_said_with_both_norms() -> None:
    warning = stall_warning(6.1, MODEL)
    assert warning is not None
    assert "6.1" in warning
    assert "against 6" in warning
    assert "compression.top" in warning
