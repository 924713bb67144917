"""Answers to the requests of other services, from the data of the providers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from chassis import threads
from chassis.deadlines import Deadline
from chassis.errors import ServiceError
from contracts.stocks import (
    BackfillBars,
    Backfilled,
    Bars,
    GetBars,
    GetQuotes,
    Instruments,
    Quotes,
    SearchSymbols,
    SymbolError,
)
from stock_data import cursors, symbols
from stock_data.cursors import Cursor
from stock_data.errors import InvalidRange, InvalidSymbol, ProviderFailure, UnknownSymbol
from stock_data.history.bars import INLINE_ROWS
from stock_data.instruments import InstrumentIndex
from stock_data.providers.failover import Failover
from stock_data.providers.kept import KeptHistory
from stock_data.providers.provider import DailyBarsQuery

# More than the shipped history has of any symbol.
_SHIPPED_BARS = 10_000


class Market:
    """Quotes, bars, search and the list of instruments. `upstreams` are the providers that are backfilled."""

    def __init__(
        self, providers: Failover, index: InstrumentIndex, *, upstreams: Sequence[KeptHistory] = ()
    ) -> None:
        self._providers = providers
        self._index = index
        self._upstreams = upstreams

    async def quotes(self, request: GetQuotes, deadline: Deadline) -> Quotes:
        """Return the quotes in the order asked for; `errors` names each symbol that has none."""
        wanted: dict[str, None] = {}
        errors: list[SymbolError] = []
        for text in request.symbols:
            try:
                wanted[symbols.parse(text)] = None
            except InvalidSymbol as error:
                errors.append(_symbol_error(text, error))
        found = await self._providers.quotes(list(wanted), deadline)
        for symbol in wanted:
            if symbol not in found.quotes:
                failure = found.errors.get(symbol) or self._unknown(symbol)
                errors.append(_symbol_error(symbol, failure))
        return Quotes(quotes=[found.quotes[s] for s in wanted if s in found.quotes], errors=errors)

    async def bars(self, request: GetBars, deadline: Deadline) -> Bars:
        """Return a page of bars. Raise an `InvalidInput`, `UnknownSymbol` or a `ProviderFailure`."""
        symbol = symbols.parse(request.symbol)
        start, end = request.start or date.min, request.end or date.max
        if end < start:
            raise InvalidRange
        cursor = None
        if request.cursor:
            cursor = cursors.decode(request.cursor, symbol=symbol, adjustment=request.adjustment)
            start = max(start, min(cursor.day, date.max - timedelta(days=1)) + timedelta(days=1))
        query = DailyBarsQuery(symbol, request.adjustment, request.limit, start, end)
        try:
            answered = await self._providers.bars(
                query, deadline, provider=cursor.provider if cursor else None
            )
        except UnknownSymbol as error:
            raise self._unknown(symbol) from error
        page, warnings, next_cursor = answered.value, list(answered.warnings), None
        if page.has_more and page.data:
            next_cursor = Cursor(answered.source, symbol, request.adjustment, page.data[-1].t.date()).encode()
        if not page.data:
            warnings.append(_no_bars(query, page.coverage.first, page.coverage.last))
        return Bars(
            symbol=symbol,
            timeframe=request.timeframe,
            adjustment=request.adjustment,
            currency=page.currency,
            source=answered.source,
            as_of=page.as_of,
            stale=page.stale,
            data=page.data,
            repeated=page.repeated,
            coverage=page.coverage,
            next_cursor=next_cursor,
            warnings=warnings,
        )

    async def bars_document(self, request: GetBars, deadline: Deadline) -> Bars | bytes:
        """Return the page of `bars`; a long one as JSON, written in a thread. Raise the same errors."""
        page = await self.bars(request, deadline)
        if len(page.data) <= INLINE_ROWS:
            return page
        return await threads.run(lambda: page.model_dump_json(by_alias=True).encode(), until=deadline)

    async def backfill(self, request: BackfillBars, deadline: Deadline) -> Backfilled:
        """Store the raw bars of a range, fetched from the first upstream that can provide them.

        Without an upstream, store nothing and report what the shipped history has of the range. Raise an
        `InvalidInput`, `UnknownSymbol`, `HistoryFull` or the first `ProviderFailure`.
        """
        symbol, start, end = symbols.parse(request.symbol), request.start, request.end or date.max
        if end < start:
            raise InvalidRange
        failure: ProviderFailure | None = None
        for upstream in self._upstreams:
            try:
                return await upstream.backfill(symbol, start, end, deadline, owner_id=request.owner_id)
            except UnknownSymbol as error:
                raise failure or self._unknown(symbol) from error
            except ProviderFailure as error:
                failure = failure or error
        if failure is not None:
            raise failure
        shipped = self._index.find(symbol)
        if shipped is None:
            raise self._unknown(symbol)
        query = DailyBarsQuery(symbol, "raw", _SHIPPED_BARS, start, end)
        answered = await self._providers.bars(query, deadline)
        return Backfilled(
            symbol=symbol,
            source=answered.source,
            currency=answered.value.currency,
            first=shipped.first_day,
            last=shipped.newest.day,
            bars=len(answered.value.data),
            written=0,
        )

    async def search(self, request: SearchSymbols, deadline: Deadline) -> Instruments:
        """Return instruments that match, best first."""
        answered = await self._providers.search(request.q, request.limit, deadline)
        return Instruments(data=answered.value)

    def _unknown(self, symbol: str) -> UnknownSymbol:
        return UnknownSymbol(symbol, suggestions=self._index.similar(symbol))


def _symbol_error(symbol: str, error: ServiceError) -> SymbolError:
    suggestions = error.suggestions if isinstance(error, UnknownSymbol) else []
    return SymbolError(
        symbol=symbol,
        code=error.code,
        status=error.status,
        detail=error.detail,
        suggestions=suggestions,
        retry_after_s=error.retry_after_s,
    )


def _no_bars(query: DailyBarsQuery, first: date | None, last: date | None) -> str:
    """Return the warning for an empty page: its range is outside the history or has no trading day."""
    if first and query.end < first:
        return f"There are no bars of {query.symbol} before {first}: the history begins there."
    if last and query.start > last:
        return f"There are no bars of {query.symbol} after {last}: the history ends there."
    return f"There are no bars of {query.symbol} in this range."
