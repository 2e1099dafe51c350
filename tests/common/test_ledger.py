"""The byte account adds up whichever way it is cut, and its chain notices every change."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedprune.errors import LocalError
from fedprune.ledger import GENESIS, Direction, Entry, Kind, Ledger, link

entries = st.builds(
    Entry,
    client=st.integers(0, 3),
    round=st.integers(0, 3),
    direction=st.sampled_from(Direction),
    kind=st.sampled_from(Kind),
    bytes=st.integers(0, 1 << 40),
)


def entry(client: int, round_: int, direction: Direction, kind: Kind, count: int) -> Entry:
    return Entry(client=client, round=round_, direction=direction, kind=kind, bytes=count)


def test_entries_of_one_key_are_one() -> None:
    one = entry(1, 2, Direction.UP, Kind.VALUES, 10)
    assert list(Ledger([one, one])) == [entry(1, 2, Direction.UP, Kind.VALUES, 20)]


def test_totals_take_what_matches() -> None:
    ledger = Ledger(
        [
            entry(0, 1, Direction.UP, Kind.VALUES, 1),
            entry(1, 1, Direction.UP, Kind.MASK, 10),
            entry(1, 2, Direction.DOWN, Kind.VALUES, 100),
        ]
    )
    assert ledger.total() == 111
    assert ledger.total(client=1) == 110
    assert ledger.total(round=1, direction=Direction.UP) == 11
    assert ledger.total(kind=Kind.VALUES) == 101
    assert ledger.by("round", "direction") == {(1, Direction.UP): 11, (2, Direction.DOWN): 100}


@given(st.lists(entries))
def test_every_cut_has_the_same_sum(many: list[Entry]) -> None:
    ledger = Ledger(many)
    whole = sum(e.bytes for e in many)
    assert ledger.total() == whole
    assert sum(ledger.by("kind").values()) == whole
    assert sum(ledger.by("client", "round").values()) == whole
    assert Ledger(ledger).by("client", "kind") == ledger.by("client", "kind")


@given(st.lists(entries))
def test_order_of_counting_does_not_show(many: list[Entry]) -> None:
    assert Ledger(many).to_csv() == Ledger(reversed(many)).to_csv()


@given(st.lists(entries))
def test_the_table_holds_every_entry(many: list[Entry]) -> None:
    ledger = Ledger(many)
    rows = list(csv.DictReader(io.StringIO(ledger.to_csv())))
    assert [int(r["bytes"]) for r in rows] == [e.bytes for e in ledger]
    assert [r["kind"] for r in rows] == [e.kind.value for e in ledger]


@pytest.mark.parametrize("field", ["client", "round", "bytes"])
def test_negative_counts_are_refused(field: str) -> None:
    numbers = {"client": 0, "round": 0, "bytes": 0, field: -1}
    with pytest.raises(LocalError, match=field):
        entry(numbers["client"], numbers["round"], Direction.UP, Kind.VALUES, numbers["bytes"])


def test_a_link_depends_on_place_past_and_content() -> None:
    first = link(sequence=1, previous=GENESIS, body="a")
    others = {
        link(sequence=2, previous=GENESIS, body="a"),
        link(sequence=1, previous=first, body="a"),
        link(sequence=1, previous=GENESIS, body="b"),
    }
    assert len(others | {first}) == 4
