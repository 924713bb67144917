"""Quotes, bars and search on the real history, through the gateway."""

from __future__ import annotations

from typing import Any

import httpx

from support.waiting import until


async def test_a_quote_names_its_source_and_its_age(api: httpx.AsyncClient) -> None:
    answer = await api.get("/v1/stocks/aapl")
    assert answer.status_code == 200
    quote = answer.json()
    assert quote["symbol"] == "AAPL"
    assert quote["source"] == "replay"
    assert quote["simulated"] is True
    assert quote["low"] <= quote["price"] <= quote["high"]
    assert quote["change"] == round(quote["price"] - quote["previous_close"], 4)


async def test_quotes_move(api: httpx.AsyncClient) -> None:
    first = (await api.get("/v1/stocks/IBM")).json()["stream"]

    async def moved() -> Any:
        now = (await api.get("/v1/stocks/IBM")).json()["stream"]
        return now["epoch"] == first["epoch"] and now["offset"] > first["offset"]

    await until(moved)


async def test_a_known_entity_tag_is_not_modified(api: httpx.AsyncClient) -> None:
    async def unchanged() -> bool:
        tag = (await api.get("/v1/stocks/MSFT")).headers["etag"]
        answer = await api.get("/v1/stocks/MSFT", headers={"If-None-Match": tag})
        return answer.status_code == 304 and not answer.content

    # The quote may move between the two requests, so the pair is tried until it has not.
    await until(unchanged)


async def test_several_symbols_give_quotes_and_name_the_unknown(api: httpx.AsyncClient) -> None:
    found = (await api.get("/v1/stocks", params={"symbols": "MSFT,NOPE,IBM"})).json()
    assert [quote["symbol"] for quote in found["quotes"]] == ["MSFT", "IBM"]
    assert [(e["symbol"], e["code"]) for e in found["errors"]] == [("NOPE", "unknown-symbol")]


async def test_bars_are_the_real_history(api: httpx.AsyncClient) -> None:
    query = {"start": "2013-02-25", "end": "2013-03-01"}
    bars = (await api.get("/v1/stocks/AAPL/bars", params=query)).json()
    assert [bar["t"][:10] for bar in bars["data"]] == [
        "2013-02-25",
        "2013-02-26",
        "2013-02-27",
        "2013-02-28",
        "2013-03-01",
    ]
    assert bars["data"][-1] | {"factor": None} == {
        "t": "2013-03-01T00:00:00Z",
        "o": 438.0,
        "h": 438.1799,
        "l": 429.98,
        "c": 430.47,
        "v": 19730300,
        "factor": None,
    }


async def test_a_split_halves_the_bars_before_it(api: httpx.AsyncClient) -> None:
    query = {"start": "2005-02-25", "end": "2005-02-28"}
    raw = (await api.get("/v1/stocks/AAPL/bars", params=query)).json()["data"]
    split = (await api.get("/v1/stocks/AAPL/bars", params={**query, "adjustment": "split"})).json()["data"]
    assert [bar["factor"] for bar in split] == [0.5, 1.0]
    assert split[0]["c"] == raw[0]["c"] / 2
    assert split[1]["c"] == raw[1]["c"]


async def test_pages_of_bars_follow_each_other(api: httpx.AsyncClient) -> None:
    days: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/v1/stocks/GOOG/bars", params=query)).json()
        days += [bar["t"] for bar in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert cursor is None
    assert days == sorted(set(days))
    assert len(days) == 2148


async def test_bars_come_as_csv_and_as_lines(api: httpx.AsyncClient) -> None:
    query = {"start": "2013-03-01"}
    csv = await api.get("/v1/stocks/FB/bars", params=query, headers={"Accept": "text/csv"})
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines()[0] == "t,o,h,l,c,v,factor"
    lines = await api.get("/v1/stocks/FB/bars", params={**query, "format": "ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert len(lines.text.splitlines()) == len(csv.text.splitlines()) - 1


async def test_search_finds_ticker_and_name(api: httpx.AsyncClient) -> None:
    for words in ("aap", "apple"):
        found = (await api.get("/v1/stocks/search", params={"q": words})).json()["data"]
        assert found[0]["symbol"] == "AAPL"
