"""Alpaca's market data (https://data.alpaca.markets) as a provider."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from chassis.deadlines import Deadline
from contracts.stocks import Bar, Instrument, Quote
from stock_data import quotes, sessions
from stock_data.errors import BadData, NotOffered, UnknownSymbol
from stock_data.providers.alpaca_payloads import AlpacaBar, AlpacaBars, AlpacaSnapshot, Snapshots
from stock_data.providers.provider import BarsPage, BarsQuery, Found
from stock_data.providers.transport import Refused, Transport

NAME = "alpaca"

P = TypeVar("P")

_SNAPSHOTS: TypeAdapter[Snapshots] = TypeAdapter(Snapshots)
_BARS = TypeAdapter(AlpacaBars)

_MOST_BARS = 10_000
_MOST_PAGES = 100
# Alpaca has nothing before; a start is required or it means today.
_FIRST_DAY = date(2016, 1, 1)
_INVALID_SYMBOL = "invalid symbol"
_DELAYS_S = {"delayed_sip": 900.0}


class AlpacaProvider:
    """Snapshots as quotes and daily bars, in the adjustments that Alpaca itself offers."""

    name = NAME

    def __init__(self, *, base_url: str, key_id: str, secret: str, feed: str, timeout_s: float) -> None:
        self._feed = feed
        self._transport = Transport(
            NAME,
            base_url,
            headers={"APCA-API-KEY-ID": key_id, "APCA-API-SECRET-KEY": secret},
            timeout_s=timeout_s,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        """The snapshots of `symbols`; a symbol that Alpaca refuses does not take the others along."""
        try:
            return await self._snapshots(symbols, deadline)
        except Refused as error:
            if _INVALID_SYMBOL not in error.detail:
                raise
            if len(symbols) == 1:
                return Found()
        # One symbol it calls invalid makes Alpaca refuse them all: find it by halves.
        half = len(symbols) // 2
        parts = [self.quotes(part, deadline) for part in (symbols[:half], symbols[half:])]
        first, second = await asyncio.gather(*parts)
        return Found({**first.quotes, **second.quotes})

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:
        """Pages through Alpaca's own pages until `query.limit` bars are there."""
        if query.end < _FIRST_DAY:
            raise NotOffered(f"Alpaca has no bars before {_FIRST_DAY}.")
        try:
            found, has_more = await self._collect(query, deadline)
        except Refused as error:
            if _INVALID_SYMBOL in error.detail:
                raise UnknownSymbol(query.symbol) from error
            raise
        if not found:
            await self._require_known(query.symbol, deadline)
        return BarsPage(data=[_bar(bar) for bar in found], has_more=has_more, as_of=datetime.now(UTC))

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:  # noqa: ARG002
        """Market data keys cannot list assets; the next provider is asked instead."""
        raise NotOffered("Alpaca's market data has no search.")

    async def _snapshots(self, symbols: Sequence[str], deadline: Deadline) -> Found:
        query = {"symbols": ",".join(symbols), "feed": self._feed}
        body = await self._transport.get("/v2/stocks/snapshots", query, deadline)
        found = _parse(_SNAPSHOTS, body)
        now = datetime.now(UTC)
        made = ((symbol, self._quote(symbol, found.get(symbol), now)) for symbol in symbols)
        return Found({symbol: quote for symbol, quote in made if quote is not None})

    def _quote(self, symbol: str, snapshot: AlpacaSnapshot | None, now: datetime) -> Quote | None:
        last = None if snapshot is None else _last_price(snapshot)
        if snapshot is None or last is None:
            return None
        as_of, price = last
        day, book = snapshot.daily_bar, snapshot.latest_quote
        before = snapshot.previous_bar.c if snapshot.previous_bar else None
        difference, percent = quotes.change(price, before)
        return Quote(
            symbol=symbol,
            price=price,
            bid=book.bp or None if book else None,
            ask=book.ap or None if book else None,
            open=day.o if day else None,
            high=day.h if day else None,
            low=day.l if day else None,
            previous_close=before,
            change=difference,
            change_percent=percent,
            volume=day.v if day else None,
            as_of=as_of,
            delayed_by_s=_DELAYS_S.get(self._feed, 0.0),
            source=NAME,
            stale=now - as_of > quotes.STALE_AFTER,
            session=sessions.session_at(now),
        )

    async def _collect(self, query: BarsQuery, deadline: Deadline) -> tuple[list[AlpacaBar], bool]:
        found: list[AlpacaBar] = []
        token: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._page(query, query.limit - len(found), token, deadline)
            if page.next_page_token is not None and page.next_page_token == token:
                break
            found += page.bars or []
            token = page.next_page_token
            if token is None or len(found) >= query.limit:
                _require_order(found)
                return found[: query.limit], token is not None
        raise BadData("Alpaca's pages do not come to an end.")

    async def _page(self, query: BarsQuery, limit: int, token: str | None, deadline: Deadline) -> AlpacaBars:
        parameters = {
            "timeframe": "1Day",
            "adjustment": query.adjustment,
            "feed": self._feed,
            "limit": str(min(limit, _MOST_BARS)),
            "start": max(query.start, _FIRST_DAY).isoformat(),
            **({"end": query.end.isoformat()} if query.end < date.max else {}),
            **({"page_token": token} if token else {}),
        }
        body = await self._transport.get(f"/v2/stocks/{query.symbol}/bars", parameters, deadline)
        return _parse(_BARS, body)

    async def _require_known(self, symbol: str, deadline: Deadline) -> None:
        """An unknown symbol and a range without a trading day look the same to the bars route."""
        if symbol not in (await self.quotes([symbol], deadline)).quotes:
            raise UnknownSymbol(symbol)


def _parse(adapter: TypeAdapter[P], body: bytes) -> P:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise BadData(f"Alpaca's answer is not as documented at {where!r}: {first['msg']}") from error


def _require_order(bars: list[AlpacaBar]) -> None:
    days = [sessions.day_of(bar.t) for bar in bars]
    if any(later <= earlier for earlier, later in itertools.pairwise(days)):
        raise BadData("Alpaca's bars are not in the order of their days.")


def _bar(bar: AlpacaBar) -> Bar:
    # Alpaca dates a day from midnight in New York; here a day starts at midnight UTC everywhere.
    return Bar(t=sessions.midnight(sessions.day_of(bar.t)), o=bar.o, h=bar.h, l=bar.l, c=bar.c, v=bar.v)


def _last_price(snapshot: AlpacaSnapshot) -> tuple[datetime, Decimal] | None:
    """When and at what price the symbol was traded last; without a trade, the newest bar's close."""
    if snapshot.latest_trade is not None:
        return snapshot.latest_trade.t, snapshot.latest_trade.p
    bar = snapshot.daily_bar or snapshot.previous_bar
    return None if bar is None else (sessions.closing(sessions.day_of(bar.t)), bar.c)
