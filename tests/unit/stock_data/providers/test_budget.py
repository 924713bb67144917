"""The shares of owners in the quota of an upstream."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chassis import shares
from stock_data.errors import NothingLeft, ShareUsedUp, UpstreamDown
from stock_data.providers.budget import Budget
from support.clocks import Clock

QUOTA = 200


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget("upstream", clock=clock)


class QuotaCaller:
    """Makes calls of owners, each with an answer that tells what is left of the quota."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.left = QUOTA

    def __call__(self, owner_id: str) -> bool:
        """Return whether a call of the owner was allowed."""
        shares.current.set(owner_id)
        try:
            with self.budget.call():
                self.left -= 1
                told = {"x-ratelimit-limit": str(QUOTA), "x-ratelimit-remaining": str(self.left)}
                self.budget.learn(told)
        except ShareUsedUp:
            return False
        return True


@pytest.fixture
def spend(budget: Budget) -> Iterator[QuotaCaller]:
    token = shares.current.set("")
    yield QuotaCaller(budget)
    shares.current.reset(token)


def used(spend: QuotaCaller, owners: str) -> dict[str, int]:
    """Return how many calls each of `owners` could make while all of them tried in turn."""
    return {owner: sum(spend(one) for one in owners * QUOTA if one == owner) for owner in owners}


def test_an_owner_that_asks_alone_has_all_but_an_eighth(spend: QuotaCaller) -> None:
    assert used(spend, "a") == {"a": QUOTA * 7 // 8}
    assert [spend(owner) for owner in "bcd"] == [True] * 3


def test_while_others_ask_an_owner_has_three_times_what_it_leaves_free(spend: QuotaCaller) -> None:
    assert spend("b")
    assert used(spend, "a") == {"a": 131}
    assert used(spend, "c") == {"c": 33}


def test_others_that_asked_in_the_period_before_count_too(spend: QuotaCaller, clock: Clock) -> None:
    spend("b")
    for expected in (132, QUOTA * 7 // 8):
        clock.now += 60
        spend.left = QUOTA
        assert used(spend, "a") == {"a": expected}


def test_what_an_owner_is_blamed_for_counts_in_its_share(budget: Budget, spend: QuotaCaller) -> None:
    spend("b")
    spend("a")
    for _ in range(3 * QUOTA):
        budget.charge("a")
    assert (spend("a"), spend("b")) == (False, True)


def test_a_service_itself_has_no_share(spend: QuotaCaller) -> None:
    assert used(spend, "a") == {"a": QUOTA * 7 // 8}
    assert spend("")


def test_a_refusal_says_when_the_quota_is_reset(budget: Budget, spend: QuotaCaller) -> None:
    assert used(spend, "a")
    with pytest.raises(ShareUsedUp, match="rest is for other owners") as caught:
        budget.spend()
    assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == ("provider-share", 429, 60)
    reset = str(int(time.time()) + 7)
    told = {"x-ratelimit-limit": str(QUOTA), "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
    budget.learn(told)
    with pytest.raises(NothingLeft, match="used up") as used_up:
        budget.spend()
    assert (used_up.value.code, used_up.value.status) == ("provider-quota", 503)
    assert 1 <= (used_up.value.retry_after_s or 0) <= 7


def test_calls_without_an_answer_take_nothing_from_the_quota(budget: Budget, spend: QuotaCaller) -> None:
    spend("b")
    for _ in range(3 * QUOTA):
        with pytest.raises(UpstreamDown), budget.call():
            raise UpstreamDown
        budget.refund("b")
    assert used(spend, "b") == {"b": QUOTA * 7 // 8 - 1}


def test_a_call_counts_as_used_while_it_is_made(budget: Budget, spend: QuotaCaller) -> None:
    spend.left = 2
    assert spend("b")
    with budget.call():
        assert not spend("c")
    assert spend("c")


def test_a_quota_that_is_not_told_is_not_shared(budget: Budget) -> None:
    token = shares.current.set("a")
    for _ in range(1_000):
        budget.spend()
        budget.learn({"x-ratelimit-remaining": "1", "x-ratelimit-limit": "9" * 99})
    shares.current.reset(token)
