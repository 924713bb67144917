"""Requests counted by several gateways: exactly the limit passes, whoever asks, and whatever fails."""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from chassis.errors import InvalidInput
from gateway.errors import RateLimited
from gateway.http.principal import TOKEN_PREFIX, Principal
from gateway.http.rates import RateClass
from gateway.limits import exchange, service
from gateway.limits.exchange import LeaseExchange
from gateway.limits.leases import Lease
from gateway.limits.service import LimitService
from support.rate_windows import RateWindows
from support.waiting import until

ANN = Principal(1, "Ann", "member", "a" * 16, frozenset())
BOB = Principal(2, "Bob", "member", "b" * 16, frozenset())
Gateways = Callable[..., LimitService]


async def passes(
    gateway: LimitService, caller: Principal = ANN, rate: RateClass = RateClass.QUOTE, cost: int = 1
) -> bool:
    try:
        await gateway.charge(caller, rate, cost)
    except RateLimited:
        return False
    return True


async def passed(*attempts: tuple[LimitService, int]) -> int:
    """Return how many of the requests to each gateway passed, all sent at once."""
    requests = [passes(gateway) for gateway, number in attempts for _ in range(number)]
    return sum(await asyncio.gather(*requests))


async def test_exactly_the_limit_passes_over_all_gateways(gateways: Gateways) -> None:
    assert await passed((gateways(), 70), (gateways(), 70), (gateways(), 70)) == 100


async def test_requests_one_after_the_other_pass_exactly_up_to_the_limit(gateways: Gateways) -> None:
    one, other = gateways(), gateways()
    results = [await passes(gateway) for _ in range(60) for gateway in (one, other)]
    assert results == [True] * 100 + [False] * 20


async def test_tokens_that_a_gateway_does_not_use_serve_another_one(
    gateways: Gateways, windows: RateWindows
) -> None:
    one, other = gateways(), gateways()
    for _ in range(20):
        await passes(one)
    row = next(iter(windows.rows.values()))
    assert row.taken > 20 > row.spent
    # Some of these wait until the first gateway has returned what it does not use.
    assert await passed((other, 100)) == 80


async def test_beyond_the_limit_the_database_is_not_asked(gateways: Gateways, windows: RateWindows) -> None:
    gateway = gateways()
    assert await passed((gateway, 101)) == 100
    before = windows.statements
    assert await passed((gateway, 200)) == 0
    assert windows.statements == before


async def test_a_request_with_a_lease_does_not_ask_the_database(
    gateways: Gateways, windows: RateWindows
) -> None:
    gateway = gateways()
    for _ in range(10):
        await passes(gateway)
    assert windows.statements < 8


async def test_requests_that_come_together_are_one_question(gateways: Gateways, windows: RateWindows) -> None:
    assert await passed((gateways(), 50)) == 50
    assert windows.statements <= 2


async def test_very_many_callers_are_asked_for_in_several_statements(
    gateways: Gateways, windows: RateWindows
) -> None:
    gateway = gateways()
    callers = [replace(ANN, key_id=f"{number:016}") for number in range(exchange.MOST_AT_ONCE * 2 + 50)]
    assert all(await asyncio.gather(*(passes(gateway, caller) for caller in callers)))
    assert windows.most_at_once == exchange.MOST_AT_ONCE


async def test_keys_and_classes_are_counted_apart(gateways: Gateways) -> None:
    gateway = gateways()
    assert await passed((gateway, 101)) == 100
    assert await passes(gateway, BOB)
    assert await passes(gateway, ANN, RateClass.SEND)


async def test_all_keys_of_an_owner_together_have_a_multiple_of_the_limit_over_all_gateways(
    gateways: Gateways,
) -> None:
    one, other = gateways(), gateways()
    keys = [replace(ANN, key_id=f"{number:016}") for number in range(10)]
    requests = [passes(gateway, key) for _ in range(40) for key in keys for gateway in (one, other)]
    assert sum(await asyncio.gather(*requests)) == 500
    # A key that was made just now has no part of the limit left, and other owners have all of theirs.
    assert not await passes(one, replace(ANN, key_id="new"))
    assert not await passes(one, replace(ANN, key_id=f"{TOKEN_PREFIX}new"))
    assert await passes(one, BOB)


async def test_a_request_beyond_the_limit_of_its_owner_takes_nothing_of_its_key(
    gateways: Gateways, windows: RateWindows
) -> None:
    gateway = gateways()
    for number in range(5):
        caller = replace(ANN, key_id=f"{number:016}")
        assert sum(await asyncio.gather(*(passes(gateway, caller) for _ in range(99)))) == 99
    last = replace(ANN, key_id="l" * 16)
    assert sum(await asyncio.gather(*(passes(gateway, last) for _ in range(30)))) == 5
    with pytest.raises(RateLimited, match="All keys of the user together may have 500 requests") as refused:
        await gateway.charge(last, RateClass.QUOTE)
    assert refused.value.headers["ratelimit-policy"] == '"quote";q=100;w=3600, "quote-owner";q=500;w=3600'
    assert refused.value.headers["ratelimit"].startswith('"quote";r=95;t=')
    assert ', "quote-owner";r=0;t=' in refused.value.headers["ratelimit"]
    await gateway.give_back()
    spent = {name[0]: row.spent for name, row in windows.rows.items()}
    assert (spent[last.key_id], spent[f"owner:{ANN.owner_id}"]) == (5, 500)


async def test_the_headers_name_the_limit_of_the_owner_only_where_less_is_left_of_it(
    gateways: Gateways,
) -> None:
    gateway = gateways()
    headers = await gateway.charge(ANN, RateClass.QUOTE)
    assert headers is not None
    assert b"owner" not in b"".join(value for _, value in headers())
    for number in range(5):
        caller = replace(ANN, key_id=f"{number:016}")
        await asyncio.gather(*(passes(gateway, caller) for _ in range(90)))
    assert b'"quote-owner";r=49;t=' in dict(headers())[b"ratelimit"]


async def test_a_class_without_a_limit_is_not_counted(gateways: Gateways, windows: RateWindows) -> None:
    assert await gateways().charge(ANN, RateClass.READ) is None
    assert windows.rows == {}


async def test_access_tokens_of_a_user_are_counted_together(gateways: Gateways) -> None:
    gateway = gateways()
    tokens = [replace(ANN, key_id=f"{TOKEN_PREFIX}{number}") for number in range(4)]
    results = [await passes(gateway, token) for _ in range(30) for token in tokens]
    assert sum(results) == 100


async def test_a_request_may_count_as_several_and_passes_whole_or_not_at_all(gateways: Gateways) -> None:
    one, other = gateways(), gateways()
    assert [await passes(gateway, ANN, RateClass.SEND, 20) for gateway in (one, other, one)] == [
        True,
        True,
        False,
    ]
    assert await passes(other, ANN, RateClass.SEND, 10)
    with pytest.raises(InvalidInput, match="counts as 51 of the class send, of which 50"):
        await one.charge(ANN, RateClass.SEND, 51)


async def test_a_refusal_says_what_is_left_and_when_to_repeat(gateways: Gateways) -> None:
    gateway = gateways()
    await passed((gateway, 100))
    began = time.time()
    with pytest.raises(RateLimited) as refused:
        await gateway.charge(ANN, RateClass.QUOTE)
    least_s, most_s = (math.ceil(3600 - at % 3600) for at in (time.time(), began))
    assert least_s <= (refused.value.retry_after_s or 0) <= most_s
    assert refused.value.headers["ratelimit-policy"] == '"quote";q=100;w=3600'
    assert refused.value.headers["ratelimit"].startswith('"quote";r=0;t=')


async def test_the_headers_say_what_is_left(gateways: Gateways) -> None:
    gateway = gateways()
    for left in range(99, 90, -1):
        headers = await gateway.charge(ANN, RateClass.QUOTE)
        assert headers is not None
        assert dict(headers())[b"ratelimit"].startswith(b'"quote";r=%d;t=' % left)


async def test_while_the_database_is_away_each_gateway_counts_alone_up_to_the_limit(
    gateways: Gateways, windows: RateWindows
) -> None:
    one, other = gateways(), gateways()
    assert await passed((one, 30)) == 30
    windows.is_away = True
    assert await passed((one, 100)) == 70
    assert await passed((other, 200)) == 100
    windows.is_away = False
    # What was let through meanwhile is told, and nothing more passes.
    await until(lambda: next(iter(windows.rows.values())).spent >= 200)
    assert await passed((gateways(), 5), (one, 5), (other, 5)) == 0


async def test_requests_wait_for_a_late_database_only_once(
    gateways: Gateways, windows: RateWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "ANSWERED_WITHIN_S", 0.2)
    gateway = gateways()
    windows.late_s = 3 * exchange.ANSWERED_WITHIN_S
    assert await passed((gateway, 5)) == 5
    with pytest.raises(StopIteration):
        gateway.charge(ANN, RateClass.QUOTE).send(None)


async def test_what_a_killed_gateway_held_is_refused_without_waiting_each_time(
    gateways: Gateways, windows: RateWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETURNED_WITHIN_S", 0.2)
    gateway = gateways()
    await passes(gateway)
    name, row = next((name, row) for name, row in windows.rows.items() if name[0] == ANN.key_id)
    windows.rows[name] = replace(row, taken=row.taken + 40)
    assert await passed((gateway, 120)) == 59
    with pytest.raises(RateLimited):
        gateway.charge(ANN, RateClass.QUOTE).send(None)


async def test_a_request_is_never_refused_while_there_are_tokens(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETURNED_WITHIN_S", 0)
    answer, snatched = LeaseExchange.answer, 0

    async def answer_to_others(
        self: LeaseExchange, rate: RateClass, lease: Lease, *, need: int = 0, is_due: bool = False
    ) -> None:
        """As when another request spends what the answer brought before this one goes on."""
        nonlocal snatched
        await answer(self, rate, lease, need=need, is_due=is_due)
        if snatched < 3:
            snatched += lease.spend(lease.tokens)

    monkeypatch.setattr(LeaseExchange, "answer", answer_to_others)
    gateway = gateways()
    assert await passes(gateway)
    assert await passes(gateway)
    assert snatched == 3


async def test_tokens_belong_to_the_requests_that_wait_for_them(
    gateways: Gateways, windows: RateWindows
) -> None:
    gateway = gateways()
    for _ in range(20):
        await passes(gateway)
    order: list[str] = []

    async def send(name: str, cost: int) -> None:
        await gateway.charge(ANN, RateClass.QUOTE, cost)
        order.append(name)

    asked, windows.late_s = windows.statements, 0.05
    large = asyncio.create_task(send("large", 40))
    await until(lambda: windows.statements > asked)
    # There is a lease that would do for this one.
    await asyncio.gather(large, send("small", 1))
    assert order == ["large", "small"]


async def test_requests_that_come_while_one_waits_for_tokens_have_what_it_does_not_need(
    gateways: Gateways, windows: RateWindows
) -> None:
    gateway, sent = gateways("quote=100000/3600"), 0
    windows.late_s = 0.001

    async def send_without_a_pause(number: int) -> None:
        nonlocal sent
        # Some come while the first question is asked.
        await asyncio.sleep(windows.late_s * (number % 2) / 2)
        while sent < 4_000:
            sent += await passes(gateway)
            await asyncio.sleep(0)

    await asyncio.gather(*(send_without_a_pause(number) for number in range(32)))
    # If each of them had to ask, a statement would be for 32 requests at most.
    assert windows.statements < 4_000 / 32 / 2


async def test_a_gateway_that_stops_returns_what_it_holds(gateways: Gateways, windows: RateWindows) -> None:
    gateway = gateways()
    for _ in range(20):
        await passes(gateway)
    await gateway.give_back()
    row = next(iter(windows.rows.values()))
    assert row.taken == row.spent == 20


async def test_a_gateway_that_counts_alone_stops_without_asking(
    gateways: Gateways, windows: RateWindows
) -> None:
    gateway = gateways()
    windows.is_away = True
    assert await passes(gateway)
    asked = windows.statements
    await gateway.give_back()
    # A question that nobody asks would be reported as never awaited.
    gc.collect()
    assert windows.statements == asked


async def test_a_new_window_begins_with_the_whole_limit(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateways()
    assert await passed((gateway, 101)) == 100
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert await passed((gateway, 101)) == 100


async def test_a_gateway_remembers_a_bounded_number_of_callers(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_LEASES", 3)
    gateway = gateways()
    for number in range(10):
        assert await passes(gateway, replace(ANN, user_id=number, key_id=f"{number:016}"))
    assert gateway.remembered(RateClass.QUOTE) == 3


async def test_an_owner_that_makes_keys_all_the_time_pushes_out_no_lease_of_others(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_LEASES", 20)
    monkeypatch.setattr(service, "MOST_LEASES_OF_OWNER", 10)
    gateway = gateways()
    for _ in range(8):
        await passes(gateway, BOB)
    for number in range(40):
        assert await passes(gateway, replace(ANN, key_id=f"{number:016}"))
    assert gateway.remembered(RateClass.QUOTE) == 11
    # What was leased for it is still there: nobody is asked.
    with pytest.raises(StopIteration):
        gateway.charge(BOB, RateClass.QUOTE).send(None)


async def test_decisions_are_counted_by_class_and_outcome(gateways: Gateways) -> None:
    def counted(outcome: str) -> float:
        labels = {"kind": "quote", "outcome": outcome}
        return REGISTRY.get_sample_value("tickwire_rate_limit_requests_total", labels) or 0.0

    before = {outcome: counted(outcome) for outcome in ("allowed", "refused")}
    await passed((gateways(), 130))
    await until(lambda: counted("refused") - before["refused"] == 30)
    assert counted("allowed") - before["allowed"] == 100
