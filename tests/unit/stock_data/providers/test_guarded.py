"""A provider behind its circuit breaker and a deadline."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from chassis import metrics, shares
from chassis.deadlines import Deadline
from stock_data.errors import AuthFailed, NotOffered, QuotaExceeded, ShareUsedUp, UnknownSymbol, UpstreamDown
from stock_data.providers import guarded as guarding
from stock_data.providers.circuit import Circuit
from stock_data.providers.guarded import Guarded
from stock_data.providers.provider import DailyBarsQuery
from support.doubles.provider import Scripted
from support.measured import value_of

QUERY = DailyBarsQuery("ACME", "raw", 10)


def soon() -> Deadline:
    return Deadline.after(5)


def calls(outcome: str) -> float:
    return value_of(metrics.PROVIDER_CALLS.labels("guarded", "bars", outcome))


async def test_answers_of_the_provider_pass_through() -> None:
    guarded = Guarded(Scripted("guarded"))
    assert guarded.name == "guarded"
    assert set((await guarded.quotes(["A"], soon())).quotes) == {"A"}
    assert (await guarded.bars(QUERY, soon())).data == []
    assert [each.symbol for each in await guarded.search("a", 5, soon())] == ["GUARDED"]


async def test_a_provider_with_a_used_up_quota_is_not_asked_again_before_its_reset() -> None:
    provider = Scripted("guarded", QuotaExceeded("200 a minute", retry_after_s=30))
    guarded = Guarded(provider)
    before = calls("quota"), calls("skipped")
    for _ in range(3):
        with pytest.raises(QuotaExceeded, match="200 a minute"):
            await guarded.bars(QUERY, soon())
    assert provider.asked == 1
    assert (calls("quota"), calls("skipped")) == (before[0] + 1, before[1] + 2)


async def test_a_call_waits_no_longer_than_the_deadline() -> None:
    with pytest.raises(UpstreamDown, match="in time"):
        await Guarded(Scripted("guarded", hangs=True)).bars(QUERY, Deadline.after(0.02))


async def test_slowness_opens_the_circuit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "LEAST_TIME_S", 0.01)
    provider = Scripted("guarded", hangs=True)
    guarded = Guarded(provider, circuit=Circuit(threshold=2))
    for _ in range(3):
        with pytest.raises(UpstreamDown):
            await guarded.bars(QUERY, Deadline.after(0.02))
    assert provider.asked == 2


async def test_requests_of_one_owner_that_fail_are_skipped_and_those_of_others_are_not() -> None:
    provider = Scripted("guarded", UpstreamDown("slow"))
    guarded = Guarded(provider, circuit=Circuit(threshold=2))
    token = shares.current.set("guest")
    for owner, asked in (("guest", 1), ("guest/stock.backfill", 2), ("guest", 2), ("ann", 3), ("guest", 3)):
        shares.current.set(owner)
        with pytest.raises(UpstreamDown, match="slow"):
            await guarded.bars(QUERY, soon())
        assert provider.asked == asked
    shares.current.reset(token)


async def test_an_owner_that_has_used_its_share_is_no_failure_of_the_provider() -> None:
    provider = Scripted("guarded", ShareUsedUp("used", retry_after_s=30))
    guarded = Guarded(provider)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(ShareUsedUp):
                await guarded.bars(QUERY, soon())
    assert (provider.asked, logs) == (2, [])


async def test_callers_without_time_do_not_open_the_circuit_for_others() -> None:
    provider = Scripted("guarded", hangs=True)
    guarded = Guarded(provider, circuit=Circuit(threshold=2))
    for _ in range(3):
        with pytest.raises(UpstreamDown):
            await guarded.bars(QUERY, Deadline.after(0.02))
    provider.hangs = False
    assert (await guarded.bars(QUERY, soon())).data == []


async def test_a_caller_that_gives_up_is_no_failure_of_the_provider() -> None:
    provider = Scripted("guarded", hangs=True)
    guarded = Guarded(provider, circuit=Circuit(threshold=1))
    before = calls("cancelled")
    task = asyncio.create_task(guarded.bars(QUERY, Deadline.after(60)))
    while not provider.asked:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    provider.hangs = False
    assert (await guarded.bars(QUERY, soon())).data == []
    assert calls("cancelled") == before + 1


async def test_an_unknown_symbol_is_an_answer() -> None:
    provider = Scripted("guarded", UnknownSymbol("ACME"))
    guarded = Guarded(provider, circuit=Circuit(threshold=1))
    for _ in range(2):
        with pytest.raises(UnknownSymbol):
            await guarded.bars(QUERY, soon())
    assert provider.asked == 2


async def test_only_failures_that_an_operator_can_fix_are_logged_as_errors() -> None:
    with structlog.testing.capture_logs() as logs:
        for error in (AuthFailed("wrong key"), UpstreamDown("no line"), NotOffered("no search")):
            with pytest.raises(type(error)):
                await Guarded(Scripted("guarded", error)).search("a", 5, soon())
    assert [(each["log_level"], each["kind"]) for each in logs] == [
        ("error", "auth"),
        ("warning", "upstream_down"),
    ]
