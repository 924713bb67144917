"""Quotes of a provider are cached while they are fresh, and calls are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from chassis import shares
from chassis.deadlines import Deadline
from stock_data.errors import BadData, QuotaExceeded, Undecided, UpstreamDown
from stock_data.providers.budget import Budget
from stock_data.providers.cached import CachedQuotes
from stock_data.providers.provider import FoundQuotes
from support.counting_provider import Counting, DateClock


class RecordedBudget(Budget):
    """A budget that counts the requests that are paid, and lists the owners that are charged."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.spent = 0
        self.charged: list[str] = []

    def spend(self) -> None:
        super().spend()
        self.spent += 1

    def charge(self, owner_id: str) -> None:
        super().charge(owner_id)
        self.charged.append(owner_id)


@pytest.fixture
def clock() -> DateClock:
    return DateClock()


@pytest.fixture
def provider() -> Counting:
    return Counting()


@pytest.fixture
def cached(provider: Counting, clock: DateClock) -> CachedQuotes:
    return CachedQuotes(provider, ttl_s=2, timeout_s=5, clock=clock)


async def test_a_quote_is_requested_once_while_it_is_fresh(
    cached: CachedQuotes, provider: Counting, clock: DateClock
) -> None:
    for _ in range(3):
        await cached.quotes(["A", "B"], Deadline.after(5))
    assert provider.asked == [["A", "B"]]
    clock.pass_s(2.1)
    await cached.quotes(["A"], Deadline.after(5))
    assert provider.asked == [["A", "B"], ["A"]]


async def test_only_missing_symbols_are_requested(cached: CachedQuotes, provider: Counting) -> None:
    await cached.quotes(["A"], Deadline.after(5))
    found = await cached.quotes(["A", "B"], Deadline.after(5))
    assert provider.asked == [["A"], ["B"]]
    assert set(found.quotes) == {"A", "B"}


async def test_callers_at_the_same_moment_share_one_call(cached: CachedQuotes, provider: Counting) -> None:
    asks = [cached.quotes([symbol, "A"], Deadline.after(5)) for symbol in ("A", "B", "C", "B")]
    await asyncio.gather(*asks)
    assert len(provider.asked) == 1
    assert sorted(provider.asked[0]) == ["A", "B", "C"]


async def test_an_unknown_symbol_is_left_out(cached: CachedQuotes) -> None:
    assert set((await cached.quotes(["A", "NOPE"], Deadline.after(5))).quotes) == {"A"}


async def test_an_unknown_symbol_is_asked_for_again_after_half_a_minute(
    cached: CachedQuotes, provider: Counting, clock: DateClock
) -> None:
    for _ in range(3):
        assert not (await cached.quotes(["NOPE"], Deadline.after(5))).quotes
    assert provider.asked == [["NOPE"]]
    clock.pass_s(31)
    await cached.quotes(["NOPE"], Deadline.after(5))
    assert provider.asked == [["NOPE"]] * 2


async def test_the_memory_of_unknown_symbols_is_bounded(
    cached: CachedQuotes, provider: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_data.providers.cached.MOST_UNKNOWN", 0)
    for _ in range(2):
        await cached.quotes(["NOPE"], Deadline.after(5))
    assert provider.asked == [["NOPE"]] * 2


async def test_a_failure_is_reported_for_each_symbol_and_not_kept(
    cached: CachedQuotes, provider: Counting
) -> None:
    await cached.quotes(["B"], Deadline.after(5))
    provider.error = QuotaExceeded("used up")
    found = await cached.quotes(["A", "B"], Deadline.after(5))
    assert (set(found.quotes), found.errors) == ({"B"}, {"A": provider.error})
    provider.error = None
    assert (await cached.quotes(["A"], Deadline.after(5))).quotes


@pytest.mark.parametrize("others", [False, True], ids=["alone", "with others"])
async def test_requests_in_an_outage_use_up_neither_the_quota_nor_a_share(
    provider: Counting, others: bool
) -> None:
    budget = Budget("counting")
    cached = CachedQuotes(provider, ttl_s=2, timeout_s=5, budget=budget)
    told = {"x-ratelimit-limit": "200", "x-ratelimit-remaining": "199"}
    token = shares.current.set("ann")
    if others:
        budget.charge("bob")
    await cached.quotes(["FIRST"], Deadline.after(5))
    budget.learn(told)
    provider.error = UpstreamDown("away")
    for number in range(300):
        symbols = [f"S{number}A", f"S{number}B"]
        found = await asyncio.gather(*(cached.quotes([each], Deadline.after(5)) for each in symbols))
        assert {type(error) for each in found for error in each.errors.values()} == {UpstreamDown}
    provider.error = None
    assert (await cached.quotes(["LAST"], Deadline.after(5))).quotes
    shares.current.reset(token)


async def test_concurrent_requests_of_an_owner_for_one_symbol_cost_it_one_call(provider: Counting) -> None:
    budget = RecordedBudget("counting")
    cached = CachedQuotes(provider, ttl_s=2, timeout_s=5, budget=budget)
    token = shares.current.set("ann")
    await asyncio.gather(*(cached.quotes([symbol, "A"], Deadline.after(5)) for symbol in ("A", "A", "B")))
    shares.current.reset(token)
    assert (budget.spent, len(provider.asked)) == (2, 1)


async def test_symbols_that_are_rejected_in_a_second_call_are_paid_by_their_owners() -> None:
    """X is invalid and leaves B and C undecided; asked for again, C is invalid, too."""

    class Rejecting(Counting):
        async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
            rejected = [symbol for symbol in "XC" if symbol in symbols][:1]
            errors = {symbol: Undecided("others were rejected") for symbol in symbols}
            return FoundQuotes({}, errors, rejected) if rejected else FoundQuotes()

    budget = RecordedBudget("counting")
    cached = CachedQuotes(Rejecting(), ttl_s=2, timeout_s=5, budget=budget)

    async def ask(owner_id: str, *symbols: str) -> None:
        shares.current.set(owner_id)
        await cached.quotes(symbols, Deadline.after(5))

    await asyncio.gather(
        *(asyncio.create_task(ask(owner, *of)) for owner, of in (("ann", "X"), ("bob", "BC")))
    )
    assert budget.charged == ["ann", "bob"]


async def test_a_bad_answer_of_one_symbol_leaves_the_others_alone(
    cached: CachedQuotes, provider: Counting
) -> None:
    provider.bad["B"] = BadData("open and close must lie between low and high")
    found = await cached.quotes(["A", "B", "NOPE"], Deadline.after(5))
    assert (set(found.quotes), found.errors) == ({"A"}, provider.bad)


async def test_a_cached_quote_has_its_present_delay_and_staleness(
    provider: Counting, clock: DateClock
) -> None:
    cached = CachedQuotes(provider, ttl_s=10**6, timeout_s=5, clock=clock)
    first = (await cached.quotes(["A"], Deadline.after(5))).quotes["A"]
    clock.pass_s(7.5)
    later = (await cached.quotes(["A"], Deadline.after(5))).quotes["A"]
    assert (first.delayed_by_s, later.delayed_by_s, later.stale) == (0, 7.5, False)
    clock.pass_s(3 * 86_400)
    assert (await cached.quotes(["A"], Deadline.after(5))).quotes["A"].stale
    assert len(provider.asked) == 1


async def test_a_shared_call_that_takes_too_long_is_an_outage(
    cached: CachedQuotes, provider: Counting
) -> None:
    provider.hangs = True
    found = await cached.quotes(["A"], Deadline.after(0.02))
    assert isinstance(found.errors["A"], UpstreamDown)
    assert "in time" in found.errors["A"].detail


async def test_the_memory_is_bounded(
    cached: CachedQuotes, provider: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stock_data.providers.cached.MOST_SYMBOLS", 2)
    await cached.quotes(["A", "B", "C"], Deadline.after(5))
    await cached.quotes(["C"], Deadline.after(5))
    await cached.quotes(["A"], Deadline.after(5))
    assert provider.asked == [["A", "B", "C"], ["A"]]
