"""The Alpaca provider against a double of its API: the documented answers, and every trap."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis import metrics
from chassis.deadlines import Deadline
from stock_data.errors import (
    AuthFailed,
    BadData,
    Blocked,
    NotEntitled,
    ProviderFailure,
    QuotaExceeded,
    UnknownSymbol,
    UpstreamDown,
)
from stock_data.providers.alpaca import AlpacaProvider
from stock_data.providers.provider import BarsQuery
from support.doubles import alpaca as double
from support.doubles import upstream as upstreams
from support.doubles.alpaca import AlpacaDouble
from support.doubles.upstream import Answer, answer_json

QUERY = BarsQuery("AAPL", "raw", 100, date(2024, 1, 1), date(2024, 1, 31))
SNAPSHOTS = "/v2/stocks/snapshots"
TRADED_AT = "2024-01-03T19:59:59.123456789Z"
EMPTY_WITH_MORE = answer_json({"bars": None, "symbol": "AAPL", "next_page_token": "MjAyNC0wMS0wNQ=="})
NOT_A_NUMBER = Answer(
    b'{"bars":[{"t":"2024-01-02T05:00:00Z","o":NaN,"h":1,"l":1,"c":1,"v":1}],"symbol":"AAPL"}'
)


def bars_of(*bars: dict[str, Any]) -> Answer:
    return answer_json({"bars": bars, "symbol": "AAPL"})


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[AlpacaDouble]:
    async with double.running() as running:
        yield running


@pytest.fixture
def upstream(server: AlpacaDouble) -> AlpacaDouble:
    server.forget()
    server.bars["AAPL"] = [double.bar(f"2024-01-{day:02}", v=day) for day in range(2, 12)]
    server.snapshots["AAPL"] = double.snapshot(11, previous_close=10)
    server.snapshots["IBM"] = double.snapshot(162.35, previous_close=160.1)
    return server


def provider_of(url: str, **changes: Any) -> AlpacaProvider:
    values = {"key_id": double.KEY_ID, "secret": double.SECRET, "feed": "iex", "timeout_s": 2, **changes}
    return AlpacaProvider(base_url=url, **values)


@pytest.fixture
async def provider(upstream: AlpacaDouble) -> AsyncIterator[AlpacaProvider]:
    made = provider_of(upstream.url)
    yield made
    await made.close()


def soon() -> Deadline:
    return Deadline.after(10)


async def test_a_snapshot_becomes_a_quote(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.price, quote.bid, quote.ask] == [11, Decimal("10.98"), Decimal("11.02")]
    assert [quote.open, quote.high, quote.low, quote.volume] == [10, 12, 9, 1000]
    assert [quote.previous_close, quote.change, quote.change_percent] == [10, 1, 10]
    assert quote.as_of == datetime(2024, 1, 3, 19, 59, 59, 123456, tzinfo=UTC)
    assert (quote.source, quote.simulated, quote.stale) == ("alpaca", False, True)
    assert upstream.seen[0].query["feed"] == "iex"


async def test_many_symbols_are_one_call(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    found = await provider.quotes(["IBM", "AAPL"], soon())
    assert set(found.quotes) == {"IBM", "AAPL"}
    assert found.quotes["IBM"].change == Decimal("2.25")
    await provider.quotes(["AAPL", "IBM"], soon())
    assert [seen.path for seen in upstream.seen] == [SNAPSHOTS, "/v1/corporate-actions", SNAPSHOTS]


async def test_prices_come_without_any_drift(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.snapshots["AAPL"] = double.snapshot(0.3, previous_close=0.1)
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert (quote.price, quote.change) == (Decimal("0.3"), Decimal("0.2"))


async def test_a_symbol_that_alpaca_does_not_have_is_left_out(provider: AlpacaProvider) -> None:
    assert set((await provider.quotes(["NOPE", "AAPL"], soon())).quotes) == {"AAPL"}


async def test_a_symbol_that_alpaca_refuses_does_not_take_the_others_along(provider: AlpacaProvider) -> None:
    found = await provider.quotes(["AAPL", "^GSPC", "IBM", "EURUSD=X"], soon())
    assert set(found.quotes) == {"AAPL", "IBM"}


async def test_an_invalid_symbol_is_found_among_the_others(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    found = await provider.quotes(["AAPL", "A1", "IBM"], soon())
    assert (set(found.quotes), found.errors) == ({"AAPL", "IBM"}, {})


async def test_many_invalid_symbols_cost_a_bounded_number_of_calls(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    found = await provider.quotes([*(f"A{number}" for number in range(199)), "AAPL"], soon())
    assert not found.quotes
    assert len(found.errors) == 200
    assert len(upstream.seen) <= 31


@pytest.mark.parametrize("snapshot", [None, {}, {"latestTrade": None, "dailyBar": None}])
async def test_a_symbol_without_any_price_is_left_out(
    provider: AlpacaProvider, upstream: AlpacaDouble, snapshot: dict[str, Any] | None
) -> None:
    upstream.snapshots["AAPL"] = snapshot
    assert not (await provider.quotes(["AAPL"], soon())).quotes


async def test_without_a_trade_the_newest_close_counts(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.snapshots["AAPL"] = {**double.snapshot(11), "latestTrade": None, "latestQuote": None}
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.price, quote.bid] == [11, None]
    assert quote.as_of == datetime(2024, 1, 3, 21, tzinfo=UTC)


async def test_no_bid_is_none_and_not_zero(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.snapshots["AAPL"] = {**double.snapshot(11), "latestQuote": {"bp": 0, "ap": 11.5}}
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert (quote.bid, quote.ask) == (None, Decimal("11.5"))


async def test_the_delayed_feed_says_so(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, feed="delayed_sip")
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    await provider.close()
    assert quote.delayed_by_s == 900


async def test_bars_come_at_midnight_of_their_day(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    page = await provider.bars(QUERY, soon())
    assert [bar.t for bar in page.data] == [datetime(2024, 1, day, tzinfo=UTC) for day in range(2, 12)]
    assert [page.data[0].o, page.data[0].h, page.data[0].l, page.data[0].c] == [10, 12, 9, 11]
    assert not page.has_more
    assert upstream.seen[0].query == {
        "timeframe": "1Day",
        "adjustment": "raw",
        "feed": "iex",
        "limit": "100",
        "start": "2024-01-01",
        "end": "2024-01-31",
    }


async def test_alpacas_pages_are_put_together(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.page_size = 3
    page = await provider.bars(QUERY, soon())
    assert [bar.v for bar in page.data] == list(range(2, 12))
    assert [seen.query["limit"] for seen in upstream.seen] == ["100", "97", "94", "91"]


async def test_the_limit_ends_the_paging(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.page_size = 3
    page = await provider.bars(BarsQuery("AAPL", "split", 5), soon())
    assert [bar.v for bar in page.data] == [2, 3, 4, 5, 6]
    assert page.has_more
    assert [seen.query["limit"] for seen in upstream.seen] == ["5", "2"]
    assert upstream.seen[0].query["adjustment"] == "split"


async def test_an_empty_page_on_the_way_is_passed_over(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.script.append(
        answer_json({"bars": None, "symbol": "AAPL", "next_page_token": "MjAyNC0wMS0wNQ=="})
    )
    page = await provider.bars(QUERY, soon())
    assert [bar.v for bar in page.data] == list(range(5, 12))


async def test_a_range_without_a_trading_day_is_empty(provider: AlpacaProvider) -> None:
    page = await provider.bars(BarsQuery("AAPL", "raw", 10, date(2024, 1, 13), date(2024, 1, 14)), soon())
    assert (page.data, page.has_more) == ([], False)


@pytest.mark.parametrize("symbol", ["NOPE", "^GSPC"])
async def test_bars_of_an_unknown_symbol_are_not_found(provider: AlpacaProvider, symbol: str) -> None:
    with pytest.raises(UnknownSymbol):
        await provider.bars(BarsQuery(symbol, "raw", 10), soon())


async def test_years_before_alpaca_are_for_the_next_provider(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    with pytest.raises(NotEntitled):
        await provider.bars(BarsQuery("AAPL", "raw", 10, end=date(2013, 3, 1)), soon())
    assert upstream.seen == []


async def test_alpaca_has_no_search(provider: AlpacaProvider) -> None:
    with pytest.raises(NotEntitled):
        await provider.search("apple", 5, soon())


async def test_wrong_credentials_are_an_auth_failure_and_asked_once(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, secret="wrong")
    with pytest.raises(AuthFailed, match="forbidden"):
        await provider.quotes(["AAPL"], soon())
    await provider.close()
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (double.FORBIDDEN, AuthFailed),
        (answer_json({"message": "unauthorized"}, 401), AuthFailed),
        (double.NO_SUBSCRIPTION, NotEntitled),
        (upstreams.PAGE, Blocked),
        (upstreams.PAGE_AS_JSON, Blocked),
        (Answer(b"<html>Access denied</html>", 403, {"content-type": "text/html"}), Blocked),
        (upstreams.REDIRECT, Blocked),
        (upstreams.TRUNCATED, BadData),
        (Answer(b"", 200, {"content-type": "application/json"}), BadData),
        (answer_json([]), BadData),
        (answer_json("bars"), BadData),
        (answer_json({"bars": {"AAPL": []}, "symbol": "AAPL"}), BadData),
        (bars_of(double.bar("2024-01-02", c="a lot")), BadData),
        (bars_of(double.bar("2024-01-02", v=-1)), BadData),
        (bars_of(double.bar("2024-01-02", l=None)), BadData),
        (bars_of(double.bar("2024-01-02", h=1)), BadData),
        (bars_of(double.bar("2024-13-02")), BadData),
        (
            Answer(
                b'{"bars":[{"t":"2024-01-02T05:00:00Z","o":NaN,"h":1,"l":1,"c":1,"v":1}],"symbol":"AAPL"}'
            ),
            BadData,
        ),
        (
            bars_of(double.bar("2024-01-03"), double.bar("2024-01-02")),
            BadData,
        ),
        (bars_of(double.bar("2024-01-02"), double.bar("2024-01-02")), BadData),
        (answer_json({"message": "invalid limit"}, 422), BadData),
        (Answer(b"[" * 100_000, 200, {"content-type": "application/json"}), BadData),
        (upstreams.ENDLESS, BadData),
    ],
)
async def test_a_failure_that_a_retry_cannot_help_is_asked_for_once(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: Answer, failure: type[ProviderFailure]
) -> None:
    upstream.always = answer
    with pytest.raises(failure):
        await provider.bars(QUERY, soon())
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [upstreams.BROKEN, upstreams.UNAVAILABLE, upstreams.RESET, upstreams.CUT],
    ids=["500", "503", "reset", "cut"],
)
async def test_an_outage_is_tried_three_times(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: Answer
) -> None:
    upstream.always = answer
    with pytest.raises(UpstreamDown):
        await provider.bars(QUERY, soon())
    assert len(upstream.seen) == 3


@pytest.mark.parametrize(
    "answer", [upstreams.BROKEN, upstreams.RESET, upstreams.CUT], ids=["500", "reset", "cut"]
)
async def test_a_short_outage_is_not_noticed(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: Answer
) -> None:
    upstream.script += [answer, answer]
    assert len((await provider.bars(QUERY, soon())).data) == 10


async def test_a_used_up_quota_says_when_it_is_filled_again(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = double.too_many(20)
    with pytest.raises(QuotaExceeded, match="too many requests") as caught:
        await provider.bars(QUERY, soon())
    assert caught.value.retry_after_s == pytest.approx(20, abs=5)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("headers", [{}, {"x_ratelimit_reset": "soon"}, {"x_ratelimit_reset": "0"}])
async def test_a_quota_without_a_sensible_reset_has_one_all_the_same(
    provider: AlpacaProvider, upstream: AlpacaDouble, headers: dict[str, str]
) -> None:
    upstream.always = answer_json({"message": "too many requests."}, 429, **headers)
    with pytest.raises(QuotaExceeded) as caught:
        await provider.bars(QUERY, soon())
    assert caught.value.retry_after_s is not None
    assert 1 <= caught.value.retry_after_s <= 30


async def test_the_reset_of_a_quota_is_also_read_from_retry_after(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = answer_json({"error": "slow down"}, 429, retry_after="12")
    with pytest.raises(QuotaExceeded, match="slow down") as caught:
        await provider.bars(QUERY, soon())
    assert caught.value.retry_after_s == 12


async def test_a_slow_answer_is_an_outage_within_the_callers_deadline(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, timeout_s=30)
    upstream.always = Answer(b"{}", delay_s=60)
    deadline = Deadline.after(0.3)
    with pytest.raises(UpstreamDown, match="in time"):
        await provider.bars(QUERY, deadline)
    await provider.close()
    assert len(upstream.seen) == 1


async def test_one_slow_attempt_is_tried_again(upstream: AlpacaDouble) -> None:
    provider = provider_of(upstream.url, timeout_s=0.2)
    upstream.script.append(Answer(b"{}", delay_s=60))
    assert len((await provider.bars(QUERY, soon())).data) == 10
    await provider.close()


async def test_a_refused_connection_is_an_outage() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        provider = provider_of(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UpstreamDown):
            await provider.quotes(["AAPL"], soon())
        await provider.close()


async def test_pages_that_never_end_are_bad_data(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.always = EMPTY_WITH_MORE
    with pytest.raises(BadData, match="come to an end"):
        await provider.bars(QUERY, soon())
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    "snapshot",
    [
        {"latestTrade": {"t": TRADED_AT, "p": "eleven"}},
        {"latestTrade": {"t": TRADED_AT, "p": -1}},
        {"latestTrade": {"t": "yesterday", "p": 11}},
        {"latestTrade": {"t": "2024-01-03T19:59:59", "p": 11}},
        {"latestTrade": []},
        {"dailyBar": {"c": 11}},
        "AAPL",
    ],
)
async def test_a_snapshot_of_another_shape_is_bad_data_of_that_symbol_alone(
    provider: AlpacaProvider, upstream: AlpacaDouble, snapshot: Any
) -> None:
    upstream.snapshots["AAPL"] = snapshot
    found = await provider.quotes(["AAPL", "IBM"], soon())
    assert set(found.quotes) == {"IBM"}
    assert {symbol: type(error) for symbol, error in found.errors.items()} == {"AAPL": BadData}


@pytest.mark.parametrize("answer", [[], "AAPL", 1, None])
async def test_snapshots_that_are_no_object_are_bad_data_of_all(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: Any
) -> None:
    upstream.always = answer_json(answer)
    with pytest.raises(BadData):
        await provider.quotes(["AAPL", "IBM"], soon())


async def test_a_quote_of_another_symbol_than_asked_for_is_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    answer = answer_json({"IBM": double.snapshot(11), "MSFT": double.snapshot(12)})
    upstream.script.append(answer)
    found = await provider.quotes(["AAPL", "IBM"], soon())
    assert set(found.quotes) == {"IBM"}
    assert found.errors["AAPL"].detail == "Alpaca answers with 'MSFT' instead of AAPL."


async def test_bars_of_another_symbol_than_asked_for_are_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = answer_json({"bars": [double.bar("2024-01-02")], "symbol": "IBM"})
    with pytest.raises(BadData, match="'IBM' instead of AAPL"):
        await provider.bars(QUERY, soon())


async def test_volumes_keep_their_fractions(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    upstream.bars["AAPL"] = [double.bar("2024-01-02", v=1000.125)]
    upstream.snapshots["AAPL"] = {**double.snapshot(11), "dailyBar": double.bar("2024-01-03", v=0.5)}
    assert (await provider.bars(QUERY, soon())).data[0].v == Decimal("1000.125")
    assert (await provider.quotes(["AAPL"], soon())).quotes["AAPL"].volume == Decimal("0.5")


async def test_a_bar_that_equals_the_one_before_is_marked(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.bars["AAPL"] = [
        double.bar(f"2024-01-{day:02}", v=day, h=12 if day < 5 else 13) for day in (3, 4, 5)
    ]
    page = await provider.bars(QUERY, soon())
    assert page.repeated == [datetime(2024, 1, 4, tzinfo=UTC)]


MONDAY_BEFORE_OPEN = "2024-06-10T08:15:00-04:00"
THURSDAY, FRIDAY, MONDAY = "2024-06-06", "2024-06-07", "2024-06-10"


def flat(day: str, price: Any) -> dict[str, Any]:
    return double.bar(day, o=price, h=price, l=price, c=price)


async def test_before_the_open_the_change_is_counted_from_the_last_close_and_the_day_is_empty(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    bars = {"dailyBar": flat(FRIDAY, 100), "prevDailyBar": flat(THURSDAY, 90)}
    upstream.snapshots["AAPL"] = double.snapshot(101, at=MONDAY_BEFORE_OPEN) | bars
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change, quote.change_percent] == [100, 1, 1]
    assert [quote.open, quote.high, quote.low, quote.volume] == [None] * 4


async def test_on_a_sunday_the_change_is_the_one_of_friday(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    bars = {"dailyBar": flat(FRIDAY, 99), "prevDailyBar": flat(THURSDAY, 90)}
    upstream.snapshots["AAPL"] = double.snapshot(99, at="2024-06-07T18:00:00-04:00") | bars
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change_percent, quote.open, quote.volume] == [90, 10, 99, 1000]


@pytest.mark.parametrize("symbol", ["AAPL", "IBM"])
async def test_a_split_overnight_is_no_change(
    provider: AlpacaProvider, upstream: AlpacaDouble, symbol: str
) -> None:
    bars = {"dailyBar": flat(MONDAY, 121.79), "prevDailyBar": flat(FRIDAY, 1208.88)}
    upstream.snapshots["AAPL"] = upstream.snapshots["IBM"] = (
        double.snapshot(121.79, at="2024-06-10T15:59:59-04:00") | bars
    )
    upstream.splits = [
        double.split("IBM", "2024-06-06", 4),
        double.split("AAPL", MONDAY, 10),
        double.split("IBM", MONDAY, 20, 2),
    ]
    upstream.page_size = 1
    quote = (await provider.quotes(["IBM", "AAPL"], soon())).quotes[symbol]
    assert [quote.previous_close, quote.change] == [Decimal("120.888"), Decimal("0.902")]
    assert quote.change_percent == Decimal("0.7461")


async def test_a_reverse_split_is_no_change_either(provider: AlpacaProvider, upstream: AlpacaDouble) -> None:
    bars = {"dailyBar": flat(FRIDAY, 2), "prevDailyBar": flat(THURSDAY, 2)}
    upstream.snapshots["AAPL"] = double.snapshot(19, at=MONDAY_BEFORE_OPEN) | bars
    upstream.splits = [double.split("AAPL", MONDAY, 1, 10)]
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change, quote.change_percent] == [20, -1, -5]


@pytest.mark.parametrize(
    "answer", [upstreams.BROKEN, double.NO_SUBSCRIPTION, answer_json({}), answer_json({"message": "no"}, 404)]
)
async def test_without_the_splits_a_quote_has_no_change_and_says_why(
    provider: AlpacaProvider, upstream: AlpacaDouble, answer: Answer
) -> None:
    upstream.actions_answer = answer
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.price, quote.previous_close, quote.change] == [11, None, None]
    assert quote.warnings == ["alpaca: the splits of the last days are not known, so there is no change"]
    asked = len(upstream.seen)
    await provider.quotes(["AAPL"], soon())
    assert len(upstream.seen) == asked + 1


@pytest.mark.parametrize(
    ("broken", "known"),
    [
        ({"symbol": "IBM", "ex_date": "2024-01-03", "new_rate": 0, "old_rate": 1}, {"AAPL"}),
        ({"new_rate": 2}, set()),
    ],
)
async def test_a_split_that_cannot_be_read_costs_the_change_of_its_symbol(
    provider: AlpacaProvider, upstream: AlpacaDouble, broken: dict[str, Any], known: set[str]
) -> None:
    splits = [broken, double.split("AAPL", "2024-01-03", 2)]
    upstream.actions_answer = answer_json({"corporate_actions": {"forward_splits": splits}})
    quotes = (await provider.quotes(["AAPL", "IBM"], soon())).quotes
    assert {symbol for symbol, quote in quotes.items() if quote.change is not None} == known
    assert len(quotes) == 2


async def test_a_close_that_is_not_of_the_session_before_is_not_compared_with(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    bars = {"dailyBar": flat(THURSDAY, 90), "prevDailyBar": flat("2024-06-05", 80)}
    upstream.snapshots["AAPL"] = double.snapshot(101, at=MONDAY_BEFORE_OPEN) | bars
    quote = (await provider.quotes(["AAPL"], soon())).quotes["AAPL"]
    assert [quote.previous_close, quote.change, quote.change_percent] == [None] * 3


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_a_time_at_the_end_of_the_calendar_is_bad_data(
    provider: AlpacaProvider, upstream: AlpacaDouble, at: str
) -> None:
    upstream.snapshots["AAPL"] = double.snapshot(11, at=at)
    assert isinstance((await provider.quotes(["AAPL"], soon())).errors["AAPL"], BadData)


async def test_an_answer_that_is_too_long_is_bad_data_and_not_read_to_its_end(
    provider: AlpacaProvider, upstream: AlpacaDouble
) -> None:
    upstream.always = Answer(b"[" + b" " * (80 << 20) + b"]")
    with pytest.raises(BadData, match="longer than 8388608 bytes"):
        await provider.bars(QUERY, soon())


@pytest.mark.parametrize(("said", "shown"), [("187", 187), ("many", 187), ("0", 0)])
async def test_the_quota_that_is_left_is_shown_by_the_upstreams_own_word(
    provider: AlpacaProvider, upstream: AlpacaDouble, said: str, shown: int
) -> None:
    upstream.script.append(answer_json({"AAPL": double.snapshot(11)}, x_ratelimit_remaining=said))
    metrics.PROVIDER_QUOTA.labels("alpaca").set(187)
    await provider.quotes(["AAPL"], soon())
    assert REGISTRY.get_sample_value("tickwire_provider_quota_remaining", {"provider": "alpaca"}) == shown
