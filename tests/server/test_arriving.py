"""The sums of a round are used only where they hold exactly what was accepted; all else is folded from the files."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from fedprune.codec import Content, Packed
from fedprune.errors import UpdateError
from fedprune.mask import Mask
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune_server.aggregation import FoldInput, fedavg
from fedprune_server.aggregation.sums import Sums, begin
from fedprune_server.arriving import Arriving, Key

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(2, 3)),))
BASE = {"w": np.zeros((2, 3), np.float32)}
NOW, NEXT = Version(model=4), Version(model=5)
ONE, TWO = (1, "a" * 64, 5), (2, "b" * 64, 5)


class Scene:
    """An arriving round, and how often updates were checked without being summed."""

    def __init__(self) -> None:
        self.arriving = Arriving()
        self.checked = 0

    def add(self, key: Key, value: float = 1.0, *, version: Version = NOW, sums: bool = True) -> None:
        def opened() -> Iterator[tuple[TensorSpec, Packed]]:
            yield SCHEMA.tensors[0], Packed(None, np.full(6, value, np.float32))

        update = FoldInput(examples=key[2], content=Content.WEIGHTS, open=opened)
        self.arriving.add(version, key, update, begin=self.begin if sums else lambda: None, check=self.check)

    @staticmethod
    def begin() -> Sums | None:
        return begin(fedavg(), SCHEMA, BASE, Mask.full(SCHEMA))

    def check(self) -> None:
        self.checked += 1

    def taken(self, *keys: Key) -> float | None:
        sums = self.arriving.take(keys)
        return None if sums is None else float(sums.finish([]).arrays["w"][0, 0])


def test_the_accepted_updates_are_summed_once_each() -> None:
    scene = Scene()
    scene.add(ONE, 1.0)
    scene.add(TWO, 3.0)
    scene.add(ONE, 1.0)  # sent again, because its receipt was lost
    assert scene.taken(TWO, ONE) == 2.0
    assert scene.checked == 0


@pytest.mark.parametrize("accepted", [(ONE,), (ONE, TWO, (3, "c" * 64, 5)), ((1, "a" * 64, 6), TWO), ()])
def test_sums_of_anything_else_are_worthless(accepted: tuple[Key, ...]) -> None:
    scene = Scene()
    scene.add(ONE)
    scene.add(TWO)
    assert scene.taken(*accepted) is None


def test_an_update_that_is_refused_spoils_them_and_is_checked_again_if_it_comes_again() -> None:
    scene = Scene()
    scene.add(ONE)
    with pytest.raises(UpdateError, match="not finite"):
        scene.add(TWO, float("nan"))
    scene.add(TWO, float("nan"))
    assert scene.checked == 1
    assert scene.taken(ONE) is None


def test_an_update_that_is_still_on_its_way_spoils_them() -> None:
    scene, half, go_on = Scene(), threading.Event(), threading.Event()

    def slowly() -> Iterator[tuple[TensorSpec, Packed]]:
        half.set()
        assert go_on.wait(100)
        yield SCHEMA.tensors[0], Packed(None, np.ones(6, np.float32))

    scene.add(ONE)
    update = FoldInput(examples=5, content=Content.WEIGHTS, open=slowly)
    coming = threading.Thread(
        target=scene.arriving.add, args=(NOW, TWO, update), kwargs={"begin": scene.begin, "check": scene.check}
    )
    coming.start()
    assert half.wait(100)
    assert scene.taken(ONE) is None
    go_on.set()
    coming.join()


def test_what_comes_after_the_close_is_checked_only_and_the_next_version_begins_anew() -> None:
    scene = Scene()
    scene.add(ONE, 1.0)
    assert scene.taken(ONE) == 1.0
    scene.add(TWO)
    assert scene.checked == 1
    scene.add((7, "d" * 64, 5), 2.0, version=NEXT)
    scene.add(TWO, version=NOW)  # a straggler of the version before
    assert scene.checked == 2
    assert scene.taken((7, "d" * 64, 5)) == 2.0


def test_a_rule_that_does_not_sum_checks() -> None:
    scene = Scene()
    scene.add(ONE, sums=False)
    assert scene.checked == 1
    assert scene.taken(ONE) is None
