"""What owners of an upstream's data cost each other: its quota, its connections, and rejected requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import TypeVar

import pytest

from chassis import shares
from chassis.deadlines import Deadline
from stock_data.errors import ProviderFailure, ShareUsedUp, Undecided
from stock_data.providers.alpaca import MOST_CALLS, AlpacaProvider
from stock_data.providers.cached import CachedQuotes
from stock_data.providers.guarded import Guarded
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes, Provider
from support.alpaca_answers import SNAPSHOTS, provider_of, soon
from support.doubles import alpaca as double
from support.doubles.alpaca import AlpacaDouble
from support.doubles.upstream import UpstreamAnswer
from support.waiting import until

T = TypeVar("T")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture
def cached(provider: AlpacaProvider) -> CachedQuotes:
    return CachedQuotes(Guarded(provider), ttl_s=1, timeout_s=10, budget=provider.budget)


async def as_owner(owner_id: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer to a request of an owner, with what it sets forgotten."""

    async def asked() -> T:
        shares.current.set(owner_id)
        return await ask()

    return await asyncio.create_task(asked())


def symbols_of(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{a}{b}" for a in LETTERS for b in LETTERS][:count]


async def bars(provider: Provider, owner_id: str, limit: int, symbol: str = "AAPL") -> BarsPage:
    query = DailyBarsQuery(symbol, "raw", limit)
    return await as_owner(owner_id, lambda: provider.bars(query, soon()))


async def quotes(cached: CachedQuotes, owner_id: str, symbols: Sequence[str]) -> FoundQuotes:
    return await as_owner(owner_id, lambda: cached.quotes(symbols, soon()))


async def test_one_owner_leaves_others_enough_of_the_quota(
    cached: CachedQuotes, upstream: AlpacaDouble
) -> None:
    upstream.allow(200)
    for symbol in (*(of_guest := symbols_of("G", 200)), *(of_others := symbols_of("N", 4))):
        upstream.snapshots[symbol] = double.snapshot(11)
    failures: list[ProviderFailure] = []
    for symbol in of_guest:
        failures += (await quotes(cached, "guest", [symbol])).errors.values()
    assert {type(error) for error in failures} == {ShareUsedUp}
    assert 0 < (failures[0].retry_after_s or 0) <= 60
    assert upstream.left >= 200 / 8 - 1
    for symbol, owner in zip(of_others, ("ann", "bob", "cy", "dan"), strict=True):
        assert set((await quotes(cached, owner, [symbol])).quotes) == {symbol}
    found = await quotes(cached, "guest/stock.quote", [of_guest[0], "NEW"])
    assert isinstance(found.errors["NEW"], ShareUsedUp)


async def test_the_pages_of_bars_count_in_the_share_of_their_owner_and_open_no_circuit(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.allow(32)
    upstream.page_size = 1
    guarded = Guarded(provider)
    for _ in range(2):
        assert len((await bars(guarded, "guest", 10)).data) == 10
    with pytest.raises(ShareUsedUp):
        await bars(guarded, "guest", 10)
    assert upstream.left == 32 / 8
    assert len((await bars(guarded, "ann", 1)).data) == 1


async def test_a_used_up_quota_that_no_call_was_made_for_opens_no_circuit(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.allow(1)
    guarded = Guarded(provider)
    assert len((await bars(guarded, "guest", 1)).data) == 1
    with pytest.raises(ShareUsedUp, match="used up"):
        await bars(guarded, "guest", 1)
    # A service's own calls are refused by nobody but the upstream, and what it tells counts.
    upstream.allow(200)
    assert len((await bars(guarded, "", 1)).data) == 1
    assert len((await bars(guarded, "guest", 1)).data) == 1


async def test_an_owner_that_has_used_its_share_takes_the_change_from_no_other_quote(
    cached: CachedQuotes, provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.allow(8)
    upstream.page_size = 1
    await bars(provider, "guest", 5)
    weekend = DailyBarsQuery("AAPL", "raw", 1, date(2024, 1, 13), date(2024, 1, 14))
    # Bars and a snapshot: its splits would be one call too many.
    assert (await as_owner("guest", lambda: provider.bars(weekend, soon()))).data == []
    upstream.allow(200)
    assert (await quotes(cached, "ann", ["IBM"])).quotes["IBM"].change is not None


async def test_a_call_that_waits_for_those_of_its_owner_is_no_outage(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, timeout_s=10)
    upstream.answers["/v2/stocks/SLOW/bars"] = UpstreamAnswer(b"{}", delay_s=3)
    slow = [asyncio.create_task(bars(provider, "guest", 1, "SLOW")) for _ in range(4)]
    await until(lambda: len(upstream.seen) == 4)
    guarded, query = Guarded(provider), DailyBarsQuery("AAPL", "raw", 1)
    with pytest.raises(ShareUsedUp, match="other requests"):
        await as_owner("guest", lambda: guarded.bars(query, Deadline.after(0.09)))
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    await provider.close()


@pytest.mark.parametrize("names_it", [True, False], ids=["named", "not named"])
async def test_the_invalid_symbols_of_an_owner_cost_another_one_no_quote(
    cached: CachedQuotes, upstream: AlpacaDouble, names_it: bool
) -> None:
    upstream.names_invalid = names_it
    own, invalid = symbols_of("N", 100), [f"{number}.." for number in range(99)]
    for symbol in own:
        upstream.snapshots[symbol] = double.snapshot(11)
    guest, neighbour = await asyncio.gather(
        quotes(cached, "guest", [own[0], *invalid]), quotes(cached, "ann", own)
    )
    assert (set(neighbour.quotes), neighbour.errors) == (set(own), {})
    assert {type(error) for error in guest.errors.values()} == {Undecided}
    assert not any(symbol in error.detail for error in guest.errors.values() for symbol in invalid)
    assert len([seen for seen in upstream.seen if seen.path == SNAPSHOTS]) <= 2 * MOST_CALLS


async def test_calls_for_rejected_symbols_are_paid_by_their_owner(
    cached: CachedQuotes, upstream: AlpacaDouble
) -> None:
    upstream.allow(200)
    for number in range(20):
        invalid = [f"{number}..{each}" for each in range(10)]
        found = await quotes(cached, "guest", invalid)
    assert {type(error) for error in found.errors.values()} == {ShareUsedUp}
    assert upstream.left >= 200 / 8 - 10


async def test_two_owners_with_slow_requests_leave_connections_for_others(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, timeout_s=10)
    upstream.answers["/v2/stocks/SLOW/bars"] = UpstreamAnswer(b"{}", delay_s=3)
    guests = [
        asyncio.create_task(bars(provider, owner, 1, "SLOW"))
        for owner in ("guest", "other")
        for _ in range(5)
    ]
    await until(lambda: len(upstream.seen) >= 6)
    assert len((await bars(provider, "ann", 1)).data) == 1
    assert not any(task.done() for task in guests)
    for task in guests:
        task.cancel()
    await asyncio.gather(*guests, return_exceptions=True)
    await provider.close()
