"""Ticks and quotes go through the files of stock-data that the README names, and through no others."""

from __future__ import annotations

from contracts.stocks import Quote
from support import ways
from support.stock_stack import DAYS_OF_A_SECOND, StockStack
from support.waiting import until


async def test_ticks_and_quotes_enter_the_files_that_the_readme_names(
    bench: StockStack, ticks: list[Quote]
) -> None:
    tick_way = ways.passing("a tick", "stock_data/")
    quote_way = ways.passing("a quote", "stock_data/", "chassis/broker/answering.py")
    await bench.run(replay_enabled=True, **DAYS_OF_A_SECOND)
    client = await bench.client()
    with ways.followed(tick_way) as entered:
        heard = len(ticks)
        await until(lambda: len(ticks) > heard + 20)
    assert tick_way - entered == set()
    assert ways.unnamed(entered, "a tick") == []
    with ways.followed(quote_way) as entered:
        assert [quote.symbol for quote in (await client.quotes("AAPL")).quotes] == ["AAPL"]
    assert quote_way - entered == set()
    assert ways.unnamed(entered, "a quote") == []
