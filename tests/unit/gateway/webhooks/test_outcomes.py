"""What an attempt to deliver comes to."""

from __future__ import annotations

import pytest

from gateway.webhooks.outcomes import MOST_ATTEMPTS, RETRY_AFTER_S, judge


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_only_2xx_succeeds(status: int) -> None:
    found = judge(1, status=status)
    assert (found.kind, found.delivery_status, found.retry_in_s) == ("succeeded", "succeeded", None)


@pytest.mark.parametrize("status", [100, 199, 300, 301, 304, 307, 400, 404, 429, 500, 503])
def test_everything_else_is_tried_again(status: int) -> None:
    found = judge(1, status=status)
    assert (found.kind, found.delivery_status) == ("failed", "pending")
    assert found.reason == f"The receiver answered {status}; only 2xx is a success."


@pytest.mark.parametrize("attempts", [1, MOST_ATTEMPTS])
def test_410_ends_the_webhook(attempts: int) -> None:
    found = judge(attempts, status=410)
    assert (found.kind, found.delivery_status, found.retry_in_s) == ("gone", "failed", None)


def test_there_are_ten_attempts_at_the_times_of_standard_webhooks() -> None:
    waits = [judge(number, status=500).retry_in_s for number in range(1, MOST_ATTEMPTS)]
    assert MOST_ATTEMPTS == 10
    for waited, usual in zip(waits, RETRY_AFTER_S, strict=True):
        assert waited is not None
        assert usual <= waited <= 1.1 * usual
    last = judge(MOST_ATTEMPTS, error="unreachable")
    assert (last.delivery_status, last.retry_in_s, last.reason) == ("failed", None, "unreachable")


@pytest.mark.parametrize(
    ("status", "asked", "least_s"),
    [
        (429, "60", 60),
        (503, "60", 60),
        (500, "60", 5),
        (429, "999999", 86_400),
        (429, "soon", 5),
        (503, "-9", 5),
    ],
)
def test_a_receiver_that_is_busy_may_ask_for_a_later_attempt(status: int, asked: str, least_s: float) -> None:
    retry_in_s = judge(1, status=status, retry_after=asked).retry_in_s
    assert retry_in_s is not None
    assert least_s <= retry_in_s <= 1.1 * least_s
