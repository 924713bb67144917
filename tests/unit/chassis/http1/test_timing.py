"""Minimum rates in both directions."""

from __future__ import annotations

from chassis.http1.timing import BodyRate, WriteStall


def test_a_client_that_reads_nothing_is_noticed_after_the_timeout() -> None:
    stall = WriteStall(30)
    assert [stall.is_over(now, 1000) for now in (0, 29, 30, 31)] == [False, False, True, True]


def test_reading_a_little_restarts_the_timeout() -> None:
    stall = WriteStall(30)
    assert not stall.is_over(0, 1000)
    assert not stall.is_over(29, 999)
    assert not stall.is_over(58, 999)
    assert stall.is_over(59, 999)


def test_reading_everything_restarts_the_timeout() -> None:
    stall = WriteStall(30)
    assert not stall.is_over(0, 1000)
    assert not stall.is_over(29, 0)
    assert not stall.is_over(40, 5000)


def test_a_body_must_reach_its_minimum_rate_in_each_window() -> None:
    rate = BodyRate(window_s=10, least_rate=1024)
    assert not rate.is_too_slow(0, 0, is_awaited=True)
    assert not rate.is_too_slow(9, 0, is_awaited=True)
    assert not rate.is_too_slow(10, 10_240, is_awaited=True)
    assert not rate.is_too_slow(19, 10_240, is_awaited=True)
    assert rate.is_too_slow(20, 20_479, is_awaited=True)


def test_time_in_which_the_application_does_not_read_does_not_count() -> None:
    rate = BodyRate(window_s=10, least_rate=1024)
    assert not rate.is_too_slow(0, 0, is_awaited=True)
    assert not rate.is_too_slow(9, 0, is_awaited=False)
    assert not rate.is_too_slow(15, 0, is_awaited=True)
    assert rate.is_too_slow(25, 0, is_awaited=True)


def test_small_pieces_that_keep_the_application_busy_do_not_restart_a_window() -> None:
    rate = BodyRate(window_s=10, least_rate=1024)
    looks = [rate.is_too_slow(now, now, is_awaited=now % 2 == 0) for now in range(30)]
    assert looks.index(True) == 20


def test_the_time_of_one_body_does_not_count_for_the_next() -> None:
    rate = BodyRate(window_s=10, least_rate=1024)
    assert not rate.is_too_slow(0, 0, is_awaited=True)
    assert not rate.is_too_slow(9, 100, is_awaited=True)
    rate.begin(300)
    assert not rate.is_too_slow(11, 300, is_awaited=True)
    assert not rate.is_too_slow(20, 300, is_awaited=True)
    assert rate.is_too_slow(21, 300, is_awaited=True)
