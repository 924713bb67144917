"""The whole service on real servers: requests over the broker, ticks on the live exchange, ops over HTTP."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiormq
import asyncpg
import httpx
import pytest
from prometheus_client import REGISTRY

from contracts.stocks import (
    GetBars,
    Quote,
    QuotesTicked,
    StreamPosition,
)
from native.rabbitmq import RabbitMQ
from stock_data.app import create_app
from stock_data.replay import repository
from stock_data.resources import Resources
from support.doubles import alpaca as double
from support.doubles import upstream as upstreams
from support.doubles.alpaca import AlpacaDouble
from support.stock_stack import (
    DAYS_OF_A_SECOND,
    StockClient,
    StockStack,
    epochs,
    hearing_ticks,
    replayed_days,
    replayed_moment,
)
from support.waiting import until


async def test_quotes_come_from_the_newest_bars_without_a_feed(bench: StockStack) -> None:
    await bench.run()
    reply = await (await bench.client()).quotes("aapl", "NOPE", "fb", "n@pe")
    assert [quote.symbol for quote in reply.quotes] == ["AAPL", "FB"]
    apple = reply.quotes[0]
    assert [apple.price, apple.previous_close, apple.change] == [
        Decimal("430.47"),
        Decimal("441.4"),
        Decimal("-10.93"),
    ]
    assert (apple.source, apple.simulated, apple.stale, apple.session) == ("embedded", False, True, "closed")
    assert apple.as_of == datetime(2013, 3, 1, 21, tzinfo=UTC)
    assert [(error.code, error.status) for error in reply.errors] == [
        ("invalid-symbol", 422),
        ("unknown-symbol", 404),
    ]


async def test_quotes_need_no_database_once_the_service_runs(bench: StockStack) -> None:
    resources = await bench.run()
    client = await bench.client()
    await resources.runtime.postgres.close()
    assert len((await client.quotes("AAPL", "FB", "GOOG", "IBM", "MSFT")).quotes) == 5
    assert [each.symbol for each in (await client.search("apple")).data] == ["AAPL"]


async def test_the_whole_history_comes_in_pages(bench: StockStack) -> None:
    await bench.run()
    client = await bench.client()
    days, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = await client.bars("IBM", limit=1000, cursor=cursor)
        days += [bar.t for bar in page.data]
        cursor, pages = page.next_cursor, pages + 1
    assert (len(days), pages) == (3270, 4)
    assert days == sorted(set(days))
    assert (days[0], days[-1]) == (datetime(2000, 3, 1, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC))


async def test_bars_can_be_had_raw_and_in_the_shares_after_a_split(bench: StockStack) -> None:
    await bench.run()
    client = await bench.client()
    days = {"start": date(2005, 2, 25), "end": date(2005, 2, 28)}
    raw = await client.bars("AAPL", **days)
    adjusted = await client.bars("AAPL", adjustment="split", **days)
    assert [str(bar.c) for bar in raw.data] == ["88.99", "44.86"]
    assert [str(bar.c) for bar in adjusted.data] == ["44.495", "44.86"]
    assert [bar.factor for bar in raw.data] == [1, 1]
    assert [bar.factor for bar in adjusted.data] == [Decimal("0.5"), 1]
    assert [bar.v for bar in adjusted.data] == [raw.data[0].v * 2, raw.data[1].v]
    assert (adjusted.source, adjusted.adjustment, adjusted.next_cursor) == ("embedded", "split", None)


async def test_fully_adjusted_closes_move_like_those_of_the_source(bench: StockStack) -> None:
    await bench.run()
    page = await (await bench.client()).bars(
        "MSFT", adjustment="all", start=date(2003, 2, 14), end=date(2003, 2, 18)
    )
    change = page.data[1].c / page.data[0].c
    assert change == pytest.approx(Decimal("24.96") / (Decimal("48.3") / 2), rel=Decimal("0.01"))


async def test_errors_keep_their_code_and_status(bench: StockStack) -> None:
    await bench.run()
    client = await bench.client()
    asked = {
        "unknown-symbol": GetBars(symbol="NOPE"),
        "invalid-symbol": GetBars(symbol="../etc"),
        "invalid-cursor": GetBars(symbol="IBM", cursor="zzz"),
        "invalid-input": GetBars(symbol="IBM", start=date(2005, 1, 2), end=date(2005, 1, 1)),
    }
    for code, request in asked.items():
        failure = await client.failure(request)
        assert (failure.code, failure.status) == (code, 404 if code == "unknown-symbol" else 422)


async def test_quotes_are_answered_from_the_feed(bench: StockStack, ticks: list[Quote]) -> None:
    started_at = datetime.now(UTC)
    await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    client = await bench.client()
    await until(lambda: len({quote.symbol for quote in ticks}) == 5)
    asked = {quote.symbol: quote for quote in (await client.quotes("AAPL", "FB")).quotes}
    assert asked["AAPL"].simulated
    assert asked["AAPL"].source == "replay"
    position = asked["AAPL"].stream
    await until(lambda: any(q.symbol == "AAPL" and q.stream == position for q in ticks))
    assert started_at <= asked["AAPL"].as_of <= datetime.now(UTC)


@pytest.mark.parametrize("is_enabled", [True, False])
async def test_quotes_are_expected_only_where_a_feed_is_set_up(bench: StockStack, is_enabled: bool) -> None:
    await bench.run(replay_enabled=is_enabled)
    assert REGISTRY.get_sample_value("tickwire_feed_expected") == is_enabled


async def test_a_replayed_day_is_the_real_one(bench: StockStack, ticks: list[Quote]) -> None:
    await bench.run(replay_enabled=True, replay_start_day=date(2005, 2, 28), **DAYS_OF_A_SECOND)
    await until(lambda: any(quote.replayed and quote.replayed.day == 1 for quote in ticks))
    day = [q for q in ticks if q.symbol == "AAPL" and q.replayed and q.replayed.day == 28]
    assert [day[-1].price, day[-1].high, day[-1].low] == [
        Decimal("44.86"),
        Decimal("45.14"),
        Decimal("43.96"),
    ]
    assert [day[-1].volume, day[0].price] == [11_635_900, Decimal("44.68")]
    assert {q.previous_close for q in day} == {Decimal("44.495")}
    assert "FB" not in {quote.symbol for quote in ticks}


async def test_a_symbol_that_is_not_replayed_yet_answers_with_its_newest_bar(
    bench: StockStack, ticks: list[Quote]
) -> None:
    await bench.run(replay_enabled=True, replay_start_day=date(2001, 1, 1))
    await until(lambda: ticks)
    found = {
        quote.symbol: quote.source for quote in (await (await bench.client()).quotes("AAPL", "FB")).quotes
    }
    assert found == {"AAPL": "replay", "FB": "embedded"}


async def test_one_of_two_replicas_feeds_and_both_answer_from_it(
    bench: StockStack, ticks: list[Quote]
) -> None:
    replicas = [await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND) for _ in range(2)]
    await until(lambda: any(each.feed.is_running for each in replicas))
    await until(lambda: all(_board_price(each) for each in replicas))
    assert sum(each.feed.is_running for each in replicas) == 1
    epochs = {_stream_epoch(each) for each in replicas}
    assert len(epochs) == 1
    assert {quote.stream.epoch for quote in ticks if quote.stream} == epochs


async def test_a_tick_that_cannot_be_read_is_passed_over(bench: StockStack, broker_url: str) -> None:
    leader = await asyncpg.connect(bench.dsn)
    await leader.execute(f"SELECT pg_advisory_lock({repository.LOCK})")
    follower = await bench.run(replay_enabled=True)
    connection = await aiormq.connect(broker_url)
    channel = await connection.channel()
    tick = Quote(
        symbol="ACME",
        price=Decimal(7),
        as_of=datetime.now(UTC),
        source="replay",
        stream=StreamPosition(epoch="1", offset=1),
    )
    ticked = QuotesTicked(quotes=[tick]).model_dump_json().encode()
    for body in (b"{", b"[]", b'{"quotes":[{"symbol":"ACME"}]}', ticked):
        await channel.basic_publish(body, exchange="live", routing_key="quotes")
    await until(lambda: follower.board.get("ACME", datetime.now(UTC)))
    assert not follower.feed.is_running
    await connection.close()
    await leader.close()


async def test_another_replica_takes_the_feed_over_and_goes_on_from_there(
    bench: StockStack, ticks: list[Quote]
) -> None:
    async with bench.running(replay_enabled=True, **DAYS_OF_A_SECOND) as first:
        await until(lambda: first.feed.is_running)
        waiting = await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
        await until(lambda: len(replayed_days(ticks)) >= 3)
    await until(lambda: waiting.feed.is_running)
    await until(lambda: len(epochs(ticks)) == 2)
    before, after = ([q for q in ticks if q.stream and q.stream.epoch == epoch] for epoch in epochs(ticks))
    await until(lambda: len(replayed_days(ticks)) >= 5)
    assert timedelta(0) < replayed_moment(after[0]) - replayed_moment(before[0])
    assert abs(replayed_moment(after[0]) - replayed_moment(before[-1])) <= timedelta(days=4)


async def test_a_restart_goes_on_from_the_position_that_was_saved(
    bench: StockStack, ticks: list[Quote]
) -> None:
    async with bench.running(replay_enabled=True, **DAYS_OF_A_SECOND):
        await until(lambda: len(replayed_days(ticks)) >= 4)
    last, ticks[:] = replayed_moment(ticks[-1]), []
    await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    await until(lambda: ticks)
    # A second of this replay is a day of history.
    assert timedelta(days=-4) <= replayed_moment(ticks[0]) - last <= timedelta(days=4)


async def test_a_restarted_service_answers_with_the_last_quotes_of_the_replay_before_its_first_tick(
    bench: StockStack, ticks: list[Quote]
) -> None:
    async with bench.running(replay_enabled=True, **DAYS_OF_A_SECOND):
        await until(lambda: len(replayed_days(ticks)) >= 2)
    last = replayed_moment(ticks[-1])
    leader = await asyncpg.connect(bench.dsn)
    await leader.execute(f"SELECT pg_advisory_lock({repository.LOCK})")
    await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    quote = (await (await bench.client()).quotes("AAPL")).quotes[0]
    assert (quote.source, quote.stream and quote.stream.offset) == ("replay", 0)
    assert timedelta(0) <= last - replayed_moment(quote) <= timedelta(days=4)
    await leader.close()


async def test_the_feed_outlives_the_loss_of_its_lock(bench: StockStack, ticks: list[Quote]) -> None:
    await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    await until(lambda: ticks)
    admin = await asyncpg.connect(bench.dsn)
    lost = await admin.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name = 'stock-data feed'"
    )
    assert lost == 1

    async def is_connected_again() -> bool:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stock-data feed'"
        return bool(await admin.fetchval(query))

    await until(is_connected_again)
    await admin.close()
    heard = len(ticks)
    await until(lambda: len(ticks) > heard)
    assert len(epochs(ticks)) == 1


async def test_ticks_come_again_after_the_broker_cut_every_connection(
    bench: StockStack, rabbitmq_server: RabbitMQ, broker_url: str
) -> None:
    resources = await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    await rabbitmq_server.control("close_all_connections", "--global", "test")
    await until(lambda: resources.runtime.health.reasons())
    await until(lambda: not resources.runtime.health.reasons())
    assert resources.feed.is_running
    async with hearing_ticks(broker_url) as heard:
        await until(lambda: heard)


async def test_alpaca_answers_first_and_history_when_it_fails(bench: StockStack) -> None:
    async with double.running() as upstream:
        upstream.snapshots["AAPL"] = double.snapshot(11)
        await bench.run(**_alpaca(upstream))
        client = await bench.client()
        quote = (await client.quotes("AAPL")).quotes[0]
        assert quote.price == 11
        assert (quote.source, quote.warnings) == ("alpaca", [])
        upstream.always = double.too_many(20)
        await until(lambda: _is_from(client, "embedded"))
        quote = (await client.quotes("AAPL")).quotes[0]
        assert quote.warnings == ["alpaca: quota: alpaca says: too many requests."]
        old = await client.bars("AAPL", limit=1, end=date(2013, 3, 1))
        assert (old.source, len(old.data), old.warnings) == ("embedded", 1, quote.warnings)
        assert [each.symbol for each in (await client.search("apple")).data] == ["AAPL"]


async def test_a_symbol_that_alpaca_does_not_know_is_not_looked_for_elsewhere(bench: StockStack) -> None:
    async with double.running() as upstream:
        await bench.run(**_alpaca(upstream))
        reply = await (await bench.client()).quotes("IBM")
        assert [(error.symbol, error.code) for error in reply.errors] == [("IBM", "unknown-symbol")]


async def test_further_pages_stay_with_their_provider(bench: StockStack) -> None:
    async with double.running() as upstream:
        upstream.bars["AAPL"] = [double.bar(f"2024-01-{day:02}", v=day) for day in range(2, 6)]
        await bench.run(**_alpaca(upstream))
        client = await bench.client()
        first = await client.bars("AAPL", limit=3)
        second = await client.bars("AAPL", limit=3, cursor=first.next_cursor)
        assert [bar.v for bar in first.data + second.data] == [2, 3, 4, 5]
        upstream.always = upstreams.BROKEN
        failure = await client.failure(GetBars(symbol="AAPL", limit=3, cursor=first.next_cursor))
        assert (failure.code, failure.status, failure.retryable) == ("provider-down", 503, True)


async def test_the_application_reports_its_health(bench: StockStack) -> None:
    app = create_app(bench.settings(replay_enabled=True)).asgi
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://s") as http,
    ):
        assert (await http.get("/livez")).status_code == 200

        async def is_ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await until(is_ready)

        async def tells_ticks() -> bool:
            return "tickwire_ticks_published_total" in (await http.get("/metrics")).text

        await until(tells_ticks)


def _alpaca(upstream: AlpacaDouble) -> dict[str, Any]:
    return {
        "providers": "alpaca,embedded",
        "alpaca_url": upstream.url,
        "alpaca_key_id": double.KEY_ID,
        "alpaca_secret_key": double.SECRET,
        "quote_ttl_s": 0.1,
    }


async def _is_from(client: StockClient, source: str) -> bool:
    return (await client.quotes("AAPL")).quotes[0].source == source


def _board_price(resources: Resources) -> Decimal | None:
    quote = resources.board.get("AAPL", datetime.now(UTC))
    return quote.price if quote else None


def _stream_epoch(resources: Resources) -> str | None:
    quote = resources.board.get("AAPL", datetime.now(UTC))
    return quote.stream.epoch if quote and quote.stream else None
