from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from chassis import metrics
from chassis.deadlines import Deadline
from contracts.stocks import Instrument, Quote
from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    InvalidCursor,
    NotEntitled,
    ProviderFailure,
    QuotaExceeded,
    UnknownSymbol,
    UpstreamDown,
)
from stock_data.providers.failover import Failover
from stock_data.providers.provider import BarsPage, BarsQuery, Found

NOW = datetime(2026, 1, 5, 15, tzinfo=UTC)
QUERY = BarsQuery("ACME", "raw", 10)


class Scripted:
    """A provider that answers, or fails with `error`, or hangs."""

    def __init__(self, name: str, error: Exception | None = None, *, hangs: bool = False) -> None:
        self.name = name
        self.error = error
        self.hangs = hangs
        self.asked = 0

    async def _decide(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        await self._decide()
        return Found({s: Quote(symbol=s, price=Decimal(1), as_of=NOW, source=self.name) for s in symbols})

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:
        await self._decide()
        return BarsPage([], has_more=False, as_of=NOW)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        await self._decide()
        return [Instrument(symbol=self.name.upper(), name=self.name, exchange="X")]


def soon() -> Deadline:
    return Deadline.after(5)


async def test_the_first_provider_that_answers_counts() -> None:
    first, second = Scripted("first"), Scripted("second")
    answered = await Failover([first, second]).quotes(["A"], soon())
    assert (answered.source, answered.warnings) == ("first", [])
    assert second.asked == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (QuotaExceeded("x", retry_after_s=5), "quota"),
        (UpstreamDown("x"), "upstream_down"),
        (Blocked("x"), "blocked"),
        (BadData("x"), "bad_data"),
        (AuthFailed("x"), "auth"),
        (NotEntitled("x"), "entitlement"),
    ],
)
async def test_a_failure_leads_to_the_next_provider_with_a_warning(error: ProviderFailure, kind: str) -> None:
    calls = metrics.PROVIDER_CALLS.labels("first", "bars", kind)
    before = calls._value.get()
    answered = await Failover([Scripted("first", error), Scripted("second")]).bars(QUERY, soon())
    assert (answered.source, answered.warnings) == ("second", [f"first: {kind}: x"])
    assert calls._value.get() == before + 1


async def test_an_unknown_symbol_is_final() -> None:
    second = Scripted("second")
    with pytest.raises(UnknownSymbol):
        await Failover([Scripted("first", UnknownSymbol("ACME")), second]).bars(QUERY, soon())
    assert second.asked == 0


async def test_when_all_fail_the_last_failure_is_the_answer() -> None:
    with pytest.raises(BadData):
        await Failover([Scripted("first", UpstreamDown()), Scripted("second", BadData())]).bars(QUERY, soon())


async def test_a_slow_provider_leaves_the_next_one_time() -> None:
    deadline = Deadline.after(0.2)
    answered = await Failover([Scripted("first", hangs=True), Scripted("second")]).bars(QUERY, deadline)
    assert answered.warnings == ["first: upstream_down: first did not answer in time."]
    assert deadline.remaining_s() > 0


async def test_a_provider_with_a_used_up_quota_is_not_asked_again_before_its_reset() -> None:
    first = Scripted("first", QuotaExceeded("200 a minute", retry_after_s=30))
    failover = Failover([first, Scripted("second")])
    for _ in range(3):
        answered = await failover.bars(QUERY, soon())
        assert answered.warnings == ["first: quota: 200 a minute"]
    assert first.asked == 1


async def test_a_further_page_comes_from_the_provider_of_the_first_or_not_at_all() -> None:
    first, second = Scripted("first"), Scripted("second", UpstreamDown())
    with pytest.raises(UpstreamDown):
        await Failover([first, second]).bars(QUERY, soon(), provider="second")
    with pytest.raises(InvalidCursor):
        await Failover([first, second]).bars(QUERY, soon(), provider="third")
    assert first.asked == 0


async def test_search_fails_over_too() -> None:
    answered = await Failover([Scripted("first", NotEntitled()), Scripted("second")]).search("a", 5, soon())
    assert [each.symbol for each in answered.value] == ["SECOND"]


async def test_a_caller_that_gives_up_is_no_failure_of_the_provider() -> None:
    first = Scripted("first", hangs=True)
    failover = Failover([first, Scripted("second")])
    for _ in range(5):
        task = asyncio.create_task(failover.bars(QUERY, Deadline.after(60)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    first.hangs = False
    assert (await failover.bars(QUERY, soon())).source == "first"
