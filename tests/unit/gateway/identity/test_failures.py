"""The limit on failed authentication."""

from __future__ import annotations

import pytest

from gateway.identity import failures
from gateway.identity.failures import FailureLimit
from support.clocks import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(failures, "time", clock)
    return clock


def test_after_a_burst_an_address_may_fail_once_in_a_while(clock: Clock) -> None:
    limit = FailureLimit(burst=3, refill_s=10)
    for _ in range(3):
        assert limit.wait_s("192.0.2.1") == 0
        limit.count("192.0.2.1")
    assert limit.wait_s("192.0.2.1") == 10
    clock.now += 4
    assert limit.wait_s("192.0.2.1") == 6
    clock.now += 6
    assert limit.wait_s("192.0.2.1") == 0
    limit.count("192.0.2.1")
    assert limit.wait_s("192.0.2.1") == 10
    clock.now += 1000
    for _ in range(3):
        assert limit.wait_s("192.0.2.1") == 0
        limit.count("192.0.2.1")
    assert limit.wait_s("192.0.2.1") == 10


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("unix:", "unix:", True),
        ("not:an:address", "192.0.2.1", False),
    ],
)
def test_the_addresses_of_one_subscriber_share_their_failures(
    one: str, other: str, is_shared: bool, clock: Clock
) -> None:
    limit = FailureLimit(burst=1, refill_s=10)
    limit.count(one)
    assert (limit.wait_s(other) > 0) is is_shared


def test_the_addresses_that_are_remembered_are_bounded(clock: Clock) -> None:
    limit = FailureLimit(burst=1, refill_s=10)
    addresses = [f"10.0.{number >> 8}.{number & 255}" for number in range(10_050)]
    for address in addresses:
        limit.count(address)
    assert [limit.wait_s(address) > 0 for address in addresses] == [False] * 50 + [True] * 10_000
