"""The embedded provider: history from our own database, quotes from the feed or the newest bar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from typing import Protocol

from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable
from contracts.stocks import Bar, Instrument, Quote
from stock_data import adjustments, quotes, search, sessions
from stock_data.adjustments import Factor
from stock_data.bars import DailyBar, Listing, Split
from stock_data.board import Board
from stock_data.catalogue import Catalogue
from stock_data.dataset import SOURCE
from stock_data.errors import UnknownSymbol, UpstreamDown
from stock_data.providers.calls import counted
from stock_data.providers.provider import BarsPage, BarsQuery, Found

# A long page takes tens of milliseconds to make, in which the loop would stand still.
_INLINE_ROWS = 500


class History(Protocol):
    """Where bars are kept."""

    def __call__(self, symbol: str, start: date, end: date, *, limit: int) -> Awaitable[list[DailyBar]]:
        """The first `limit` bars of the days `start` to `end`, oldest first."""


class EmbeddedProvider:
    """Answers quotes and searches from memory, and bars from the database."""

    name = SOURCE

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        board: Board,
        history: History,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._catalogue = catalogue
        self._board = board
        self._history = history
        self._clock = clock

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> Found:  # noqa: ARG002 - never waits
        """The feed's last quotes; where it has none, the newest bars."""
        now = self._clock()
        with counted(self.name, "quotes"):
            found = ((symbol, self._quote(symbol, now)) for symbol in symbols)
            return Found({symbol: quote for symbol, quote in found if quote is not None})

    async def bars(self, query: BarsQuery, deadline: Deadline) -> BarsPage:  # noqa: ARG002 - SQL has its own
        """A page of the history."""
        with counted(self.name, "bars"):
            listing = self._catalogue.find(query.symbol)
            if listing is None:
                raise UnknownSymbol(query.symbol)
            rows = await self._rows(query)
        if len(rows) <= _INLINE_ROWS:
            return self._page(listing, query, rows)
        return await asyncio.to_thread(self._page, listing, query, rows)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:  # noqa: ARG002
        """The instruments of the history that match."""
        with counted(self.name, "search"):
            return [_instrument(listing) for listing in search.best(self._catalogue, q, limit=limit)]

    async def _rows(self, query: BarsQuery) -> list[DailyBar]:
        try:
            return await self._history(query.symbol, query.start, query.end, limit=query.limit + 1)
        except DatabaseUnavailable as error:
            raise UpstreamDown(error.detail, retry_after_s=error.retry_after_s) from error

    def _quote(self, symbol: str, now: datetime) -> Quote | None:
        quote = self._board.get(symbol, now)
        if quote is not None:
            return quote
        listing = self._catalogue.find(symbol)
        return None if listing is None else quotes.from_newest_bar(listing, now)

    def _page(self, listing: Listing, query: BarsQuery, rows: list[DailyBar]) -> BarsPage:
        factor = adjustments.factor_for(query.adjustment, listing)
        splits = listing.splits if query.adjustment in ("split", "all") else ()
        newest = sessions.closing(listing.newest.day)
        is_old = self._clock() - newest > quotes.STALE_AFTER
        return BarsPage(
            data=[_adjusted(row, factor, splits) for row in rows[: query.limit]],
            has_more=len(rows) > query.limit,
            as_of=newest,
            currency=listing.currency,
            stale=is_old and query.end > listing.newest.day,
        )


def _adjusted(row: DailyBar, factor: Factor, splits: tuple[Split, ...]) -> Bar:
    multiplier = factor(row)
    bar = adjustments.apply(row, multiplier, shares=adjustments.split_factor(row.day, splits))
    return Bar(
        t=sessions.midnight(bar.day),
        o=bar.open,
        h=bar.high,
        l=bar.low,
        c=bar.close,
        v=bar.volume,
        factor=multiplier,
    )


def _instrument(listing: Listing) -> Instrument:
    return Instrument(
        symbol=listing.symbol,
        name=listing.name,
        exchange=listing.exchange,
        currency=listing.currency,
        first_bar=listing.first_day,
        last_bar=listing.newest.day,
    )
