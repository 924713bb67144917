"""An upstream with a stored raw history: bars that were fetched once are not requested again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

from chassis import logging, redaction
from chassis.deadlines import Deadline
from chassis.errors import DatabaseUnavailable, DeadlineExceeded
from chassis.turns import OwnerTurns
from contracts.stocks import Backfilled, Bar, Instrument
from stock_data import sessions
from stock_data.errors import BadData
from stock_data.history import kept_bars
from stock_data.history.kept_bars import KeptBars
from stock_data.providers.provider import BarsPage, DailyBarsQuery, FoundQuotes, Provider

log = logging.get(__name__)

_PAGE = 10_000
# Backfills that run concurrently, in total and of one owner: the quotes and bars of others need the upstream,
# too.
_SIDE_BY_SIDE = 3
_OF_OWNER = 2
_MOST_WAITING = 100
_ONE_DAY = timedelta(days=1)


class KeptHistory:
    """Returns raw bars from the database where it has all requested days; asks `provider` for the rest."""

    def __init__(
        self, provider: Provider, kept: KeptBars, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._provider = provider
        self._kept = kept
        self._clock = clock
        self._turns = OwnerTurns(most=_SIDE_BY_SIDE, of_owner=_OF_OWNER, most_waiting=_MOST_WAITING)

    @property
    def name(self) -> str:
        """The provider's own name."""
        return self._provider.name

    async def quotes(self, symbols: Sequence[str], deadline: Deadline) -> FoundQuotes:
        """Return the provider's quotes."""
        return await self._provider.quotes(symbols, deadline)

    async def bars(self, query: DailyBarsQuery, deadline: Deadline) -> BarsPage:
        """Return a page from the database when it has all days of the range, else the provider's."""
        if query.adjustment == "raw":
            try:
                page = await self._page(query)
            except (DatabaseUnavailable, TimeoutError) as error:
                log.warning(
                    "stored bars cannot be read, asking the provider", reason=redaction.safe_message(error)
                )
                page = None
            if page is not None:
                return page
        return await self._provider.bars(query, deadline)

    async def search(self, q: str, limit: int, deadline: Deadline) -> list[Instrument]:
        """Return the provider's matches."""
        return await self._provider.search(q, limit, deadline)

    async def backfill(
        self, symbol: str, start: date, end: date, deadline: Deadline, *, owner_id: str = ""
    ) -> Backfilled:
        """Fetch and store the past days that are not stored yet.

        Owners take turns. Days after the newest bar are requested again, because the upstream may have been
        late. Raise a `ProviderFailure`, `UnknownSymbol`, `HistoryFull` or `DeadlineExceeded`; ranges that
        were stored before the error stay stored.
        """
        try:
            async with asyncio.timeout(deadline.remaining_s()), self._turns.turn(owner_id):
                return await self._backfill(symbol, start, end, deadline, owner_id)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The history of {symbol} did not arrive in time; repeat the request."
            ) from None

    async def _backfill(
        self, symbol: str, start: date, end: date, deadline: Deadline, owner_id: str
    ) -> Backfilled:
        # The bar of an unfinished day would still change.
        end = min(end, sessions.day_of(self._clock()) - _ONE_DAY)
        kept, written, currency = await self._kept.range_of(self.name, symbol), 0, "USD"
        for first, last in kept_bars.missing(kept, start, end) if start <= end else ():
            await self._kept.require_room(owner_id)
            bars, repeated, currency = await self._bring(symbol, first, last, deadline)
            if bars or kept is not None:
                written += await self._kept.keep(
                    self.name,
                    symbol,
                    (first, last),
                    bars,
                    currency=currency,
                    repeated=repeated,
                    owner_id=owner_id,
                )
        kept = await self._kept.range_of(self.name, symbol)
        return Backfilled(
            symbol=symbol,
            source=self.name,
            currency=kept.currency if kept is not None else currency,
            first=kept.first if kept is not None else None,
            last=kept.last if kept is not None else None,
            bars=await self._kept.count(self.name, symbol, start, end),
            written=written,
        )

    async def _bring(
        self, symbol: str, first: date, last: date, deadline: Deadline
    ) -> tuple[list[Bar], set[date], str]:
        bars: list[Bar] = []
        repeated: set[date] = set()
        while True:
            page = await self._provider.bars(DailyBarsQuery(symbol, "raw", _PAGE, first, last), deadline)
            bars += page.data
            repeated.update(at.date() for at in page.repeated)
            if not (page.has_more and page.data):
                return bars, repeated, page.currency
            following = page.data[-1].t.date() + _ONE_DAY
            if following <= first:
                raise BadData(f"{self.name} answered with days of {symbol} before the requested range.")
            first = following

    async def _page(self, query: DailyBarsQuery) -> BarsPage | None:
        kept = await self._kept.range_of(self.name, query.symbol)
        if kept is None or not kept.covers(query.start, query.end):
            return None
        rows = await self._kept.bars(self.name, query.symbol, query.start, query.end, limit=query.limit + 1)
        page = rows[: query.limit]
        return BarsPage(
            data=[bar for bar, _ in page],
            has_more=len(rows) > query.limit,
            as_of=sessions.closing(kept.last),
            currency=kept.currency,
            repeated=[bar.t for bar, is_repeated in page if is_repeated],
        )
