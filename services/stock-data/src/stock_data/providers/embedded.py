"""The embedded provider: history from the service's own database, quotes from the feed or the newest bar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import Protocol

from chassis import threads
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable
from contracts.stocks import Bar, Coverage, Instrument, Quote
from stock_data import instruments, quotes, search, sessions
from stock_data.errors import UnknownSymbol, UpstreamDown
from stock_data.history import adjustments
from stock_data.history.bars import INLINE_ROWS, DailyBar, Listing
from stock_data.history.dataset import SOURCE
from stock_data.instruments import InstrumentIndex
from stock_data.providers.calls import counted
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes
from stock_data.replay.board import Board


class History(Protocol):
    """A store of bars."""

    def __call__(self, symbol: str, start: date, end: date, *, limit: int) -> Awaitable[list[DailyBar]]:
        """Return the first `limit` bars of the days `start` to `end`, oldest first."""


class EmbeddedProvider:
    """Answers quotes and searches from memory, and bars from the database."""

    name = SOURCE

    def __init__(
        self,
        *,
        index: InstrumentIndex,
        board: Board,
        history: History,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._index = index
        self._board = board
        self._history = history
        self._clock = clock

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:  # noqa: ARG002 - never waits
        """Return the feed's last quotes; where it has none, the newest bars."""
        now = self._clock()
        found: dict[str, Quote] = {}
        with counted(self.name, "quotes"):
            for symbol in symbols:
                quote, listing = self._board.get(symbol, now), self._index.find(symbol)
                if quote is not None:
                    found[symbol] = quote
                elif listing is not None:
                    found[symbol] = quotes.from_newest_bar(listing, now)
            return FoundQuotes(found)

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:  # noqa: ARG002 - SQL has its own
        """Return a page of the history."""
        with counted(self.name, "bars"):
            listing = self._index.find(query.symbol)
            if listing is None:
                raise UnknownSymbol(query.symbol)
            try:
                rows = await self._history(query.symbol, query.start, query.end, limit=query.limit + 1)
            except DatabaseUnavailable as error:
                raise UpstreamDown(error.detail, retry_after_s=error.retry_after_s) from error
        if len(rows) <= INLINE_ROWS:
            return self._page(listing, query, rows)
        return await threads.run(partial(self._page, listing, query, rows))

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:  # noqa: ARG002
        """Return the instruments of the history that match."""
        with counted(self.name, "search"):
            return [instruments.describe(listing) for listing in search.best(self._index, q, limit=limit)]

    def _page(self, listing: Listing, query: DailyBarsQuery, rows: list[DailyBar]) -> BarsPage:
        factor = adjustments.factor_for(query.adjustment, listing)
        splits = listing.splits if query.adjustment in ("split", "all") else ()
        newest = sessions.closing(listing.newest.day)
        page = rows[: query.limit]
        data: list[Bar] = []
        for row in page:
            multiplier = factor(row)
            bar = adjustments.apply(row, multiplier, shares=adjustments.split_factor(row.day, splits))
            at = sessions.midnight(bar.day)
            prices = {"o": bar.open, "h": bar.high, "l": bar.low, "c": bar.close}
            data.append(Bar(t=at, v=bar.volume, factor=multiplier, **prices))
        return BarsPage(
            data=data,
            has_more=len(rows) > query.limit,
            as_of=newest,
            currency=listing.currency,
            stale=quotes.is_stale(newest, self._clock()) and query.end > listing.newest.day,
            repeated=[sessions.midnight(row.day) for row in page if row.is_repeated],
            coverage=Coverage(first=listing.first_day, last=listing.newest.day),
        )
