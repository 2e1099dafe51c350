"""Limits as arithmetic: what is refused, what has to wait, and that everything taken is given back."""

from __future__ import annotations

import pytest

from fedprune.errors import BusyError, LimitError
from fedprune.network_section import NetworkSection
from fedprune_server.limits import (
    CALL_BYTES,
    CALLS_PER_S,
    DEBT_BYTES,
    DEBTOR_S,
    LONGEST_WAIT_S,
    MOST_DEBTORS,
    PROGRESS_BYTES,
    Limits,
    TokenBucket,
)

LOST_BYTES_PER_S = NetworkSection().max_lost_bytes_per_s


class TestTokenBucket:
    def test_a_burst_is_free_and_the_rest_is_waited_for(self) -> None:
        bucket = TokenBucket(10.0, 20.0)
        assert bucket.take(20, 0.0) == 0.0
        assert bucket.take(5, 0.0) == pytest.approx(0.5)

    def test_time_gives_back(self) -> None:
        bucket = TokenBucket(10.0, 20.0)
        bucket.take(25, 0.0)
        assert bucket.take(0, 0.5) == 0.0
        assert bucket.take(20, 2.5) == 0.0

    def test_over_any_time_no_more_than_rate_and_burst(self) -> None:
        bucket, now_s, taken = TokenBucket(100.0, 50.0), 0.0, 0
        while now_s < 30.0:
            taken += 7
            now_s += bucket.take(7, now_s)
        assert taken <= 50 + 100 * now_s + 7

    def test_no_rate_no_limit(self) -> None:
        assert TokenBucket(0.0, 0.0).take(1e12, 0.0) == 0.0


class TestCalls:
    def test_one_client_cannot_take_all(self) -> None:
        limits = Limits(NetworkSection(max_client_calls=2))
        with (
            limits.call("a"),
            limits.call("a"),
            limits.call("b"),
            pytest.raises(BusyError, match="client a: too many calls"),
            limits.call("a"),
        ):
            pass
        with limits.call("a"), limits.call("a"):
            pass

    def test_all_together_have_a_limit(self) -> None:
        limits = Limits(NetworkSection(max_calls=2))
        with (
            limits.call("a"),
            limits.call("b"),
            pytest.raises(BusyError, match="the coordinator has too many calls"),
            limits.call("c"),
        ):
            pass


class TestUploads:
    def test_their_number_is_bounded(self) -> None:
        limits = Limits(NetworkSection(max_uploads=1))
        with limits.upload("a", 10), pytest.raises(BusyError), limits.upload("b", 10):
            pass
        with limits.upload("b", 10):
            pass

    def test_one_client_has_one_its_newest(self) -> None:
        limits = Limits(NetworkSection(max_uploads=2, max_staged_bytes=100))
        older, newer = limits.upload("a", 60), limits.upload("a", 50)
        older.__enter__()
        with newer:
            older.__exit__(None, None, None)
            with limits.upload("b", 50), pytest.raises(BusyError, match="too many uploads"), limits.upload("c", 0):
                pass
        with limits.upload("b", 100):
            pass

    def test_so_are_their_bytes_and_a_failed_one_gives_them_back(self) -> None:
        limits = Limits(NetworkSection(max_staged_bytes=100))
        with pytest.raises(KeyError), limits.upload("a", 100):
            raise KeyError
        with limits.upload("a", 60):
            with pytest.raises(BusyError, match="too many bytes"), limits.upload("b", 41):
                pass
            with limits.upload("b", 40):
                pass

    def test_a_fast_client_waits_and_another_does_not(self) -> None:
        limits = Limits(NetworkSection(max_client_bytes_per_s=1000.0))
        assert limits.pause_s("a", 3000, 0.0) == pytest.approx(2.0)
        assert limits.pause_s("b", 500, 0.0) == 0.0

    def test_together_they_wait_for_the_total(self) -> None:
        limits = Limits(NetworkSection(max_bytes_per_s=1000.0))
        assert limits.pause_s("a", 1000, 0.0) == 0.0
        assert limits.pause_s("b", 1000, 0.0) == pytest.approx(1.0)


class TestDebts:
    CREDIT = DEBT_BYTES + 2 * 1000

    def test_what_comes_to_nothing_is_waited_for_beyond_the_credit(self) -> None:
        limits = Limits(NetworkSection(), 1000)
        assert limits.owe_s("a", self.CREDIT, 0.0) == 0.0
        assert limits.owe_s("a", LOST_BYTES_PER_S, 0.0) == pytest.approx(1.0)
        assert limits.owe_s("b", 1, 0.0) == 0.0

    def test_what_nobody_waits_for_has_no_credit(self) -> None:
        assert Limits(NetworkSection()).owe_s("a", LOST_BYTES_PER_S, 0.0, awaited=False) == pytest.approx(1.0)

    def test_debtors_share_what_is_forgiven(self) -> None:
        limits = Limits(NetworkSection())
        for name in ("a", "b", "c", "d"):
            limits.owe_s(name, 1, 0.0, awaited=False)
        assert limits.owe_s("d", LOST_BYTES_PER_S, 0.0, awaited=False) == pytest.approx(4.0, rel=0.01)
        assert limits.owe_s("a", LOST_BYTES_PER_S, 2 * DEBTOR_S, awaited=False) == pytest.approx(1.0)

    def test_a_receipt_settles_everything_but_only_once(self) -> None:
        limits = Limits(NetworkSection())
        limits.owe_s("a", DEBT_BYTES, 0.0)
        limits.settle("a", 7)
        assert limits.owe_s("a", DEBT_BYTES, 0.0) == 0.0
        limits.settle("a", 7)
        assert limits.owe_s("a", DEBT_BYTES, 0.0) > 0.0

    def test_who_is_deep_in_debt_is_sent_away_until_it_is_forgiven(self) -> None:
        limits = Limits(NetworkSection())
        limits.check_debt("a", 0.0)
        limits.owe_s("a", DEBT_BYTES + 10 * LOST_BYTES_PER_S, 0.0)
        with pytest.raises(BusyError, match="client a: too much has come to nothing"):
            limits.check_debt("a", 10.0 - LONGEST_WAIT_S - 0.1)
        limits.check_debt("a", 10.0 - LONGEST_WAIT_S + 0.1)

    def test_so_many_calls_are_free_whatever_the_size_of_the_model(self) -> None:
        for max_update_bytes in (0, 1 << 30):
            limits = Limits(NetworkSection(), max_update_bytes)
            held_s = [limits.call_s("a", 0.0) for _ in range(DEBT_BYTES // CALL_BYTES + 1)]
            assert held_s == [*([0.0] * (DEBT_BYTES // CALL_BYTES)), CALL_BYTES / LOST_BYTES_PER_S]

    def test_who_calls_too_often_is_sent_away_until_it_has_a_receipt(self) -> None:
        limits = Limits(NetworkSection(), 1 << 30)
        while limits.call_s("a", 0.0) <= LONGEST_WAIT_S:
            limits.check_debt("a", 0.0)
        with pytest.raises(BusyError):
            limits.check_debt("a", 0.0)
        limits.settle("a", 1)
        limits.check_debt("a", 0.0)

    def test_no_call_is_free_for_a_transfer_that_nobody_waits_for(self) -> None:
        limits = Limits(NetworkSection())
        for _ in range(int(LONGEST_WAIT_S * LOST_BYTES_PER_S / CALL_BYTES) + 1):
            limits.check_debt("a", 0.0, awaited=False)
            limits.call_s("a", 0.0)
        with pytest.raises(BusyError):
            limits.check_debt("a", 0.0, awaited=False)

    def test_who_was_hung_up_on_has_no_free_call_until_it_has_a_receipt(self) -> None:
        limits = Limits(NetworkSection())
        limits.spend("a", 0.0)
        assert limits.call_s("a", 0.0) == CALL_BYTES / LOST_BYTES_PER_S
        limits.settle("a", 1)
        assert limits.call_s("a", 0.0) == 0.0

    def test_a_thousand_debtors_are_forgiven_a_call_each_now_and_then(self) -> None:
        limits = Limits(NetworkSection())
        for number in range(1000):
            for _ in range(DEBT_BYTES // CALL_BYTES + 1):
                limits.call_s(f"client-{number}", 0.0)
        assert limits.call_s("client-0", 1 / CALLS_PER_S) == pytest.approx(1 / CALLS_PER_S)

    def test_who_sets_no_limit_has_none(self) -> None:
        limits = Limits(NetworkSection(max_lost_bytes_per_s=0.0))
        assert limits.owe_s("a", 1 << 40, 0.0, awaited=False) == 0.0
        assert not any(limits.call_s("a", 0.0) for _ in range(1000))
        limits.check_debt("a", 0.0, awaited=False)

    def test_not_more_debtors_are_remembered_than_a_few(self) -> None:
        limits = Limits(NetworkSection())
        limits.owe_s("first", LOST_BYTES_PER_S, 0.0, awaited=False)
        for number in range(MOST_DEBTORS):
            limits.owe_s(f"client-{number}", 1, 0.0)
        assert limits.owe_s("first", 0, 0.0, awaited=False) == 0.0


class TestProgress:
    def test_bytes_move_the_deadline(self) -> None:
        watchdog = Limits(NetworkSection(stall_s=30.0)).progress(0.0)
        watchdog.heard(PROGRESS_BYTES, 20.0)
        assert watchdog.deadline_s == 50.0

    def test_a_trickle_does_not(self) -> None:
        watchdog = Limits(NetworkSection(stall_s=30.0)).progress(0.0)
        for second in range(29):
            watchdog.heard(1, float(second))
        assert watchdog.deadline_s == 30.0


def test_clients_are_counted() -> None:
    limits = Limits(NetworkSection(max_clients=2))
    limits.check_client_count(1, party="client b")
    with pytest.raises(LimitError, match="client c: no more clients can join"):
        limits.check_client_count(2, party="client c")
