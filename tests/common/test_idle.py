from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedprune.idle import idle_warnings, shrinkers
from fedprune.traffic import Traffic

DENSE = Traffic(up=1000, down=2000)
PRUNED = shrinkers(density=0.1, values="lossless")


def test_what_should_shrink_is_named() -> None:
    assert shrinkers(density=1.0, values="lossless") == ()
    assert shrinkers(density=0.1, values="int8", top=0.25) == (
        "a mask of density 0.1",
        "the top 0.25 of the weights",
        "int8 values",
    )


def test_a_compressor_that_acts_is_not_mentioned() -> None:
    assert idle_warnings(Traffic(up=999, down=1999), DENSE, up=PRUNED, down=PRUNED) == ()


def test_one_that_does_not_is_reported_with_its_bytes() -> None:
    warned = idle_warnings(Traffic(up=1000, down=300), DENSE, up=PRUNED, down=PRUNED)
    assert warned == ("compression up did not act: 1000 bytes in spite of a mask of density 0.1, dense would be 1000",)


def test_each_direction_is_judged_by_its_own_plan() -> None:
    int8 = shrinkers(density=1.0, values="int8")
    (warned,) = idle_warnings(Traffic(up=5000, down=5000), DENSE, up=(), down=int8)
    assert warned.startswith("compression down did not act: 5000 bytes in spite of int8 values")


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_dense_run_and_a_silent_direction_are_never_blamed(up: int, down: int) -> None:
    moved = Traffic(up=up, down=down)
    assert idle_warnings(moved, DENSE, up=(), down=()) == ()
    assert idle_warnings(moved, Traffic(), up=PRUNED, down=PRUNED) == ()
