"""The market: answers what other services ask, from the providers, in the words of the contracts."""

from __future__ import annotations

from datetime import date, timedelta

from chassis.deadlines import Deadline
from chassis.errors import ServiceError
from contracts.stocks import (
    Bars,
    GetBars,
    GetQuotes,
    Instruments,
    Quote,
    Quotes,
    SearchSymbols,
    SymbolError,
)
from stock_data import cursors, symbols
from stock_data.cursors import Cursor
from stock_data.errors import InvalidRange, InvalidSymbol, ProviderFailure, UnknownSymbol
from stock_data.providers.failover import Answered, Failover
from stock_data.providers.provider import BarsPage, BarsQuery, Found


class Market:
    """Quotes, bars and search over the providers."""

    def __init__(self, providers: Failover) -> None:
        self._providers = providers

    async def quotes(self, request: GetQuotes, deadline: Deadline) -> Quotes:
        """A quote for each symbol, in the order asked for; what has none is named in `errors`."""
        wanted, errors = _parsed(request.symbols)
        found: dict[str, Quote] = {}
        if wanted:
            try:
                answered = await self._providers.quotes(wanted, deadline)
            except ProviderFailure as error:
                errors += [_symbol_error(symbol, error) for symbol in wanted]
            else:
                found = _with_warnings(answered)
                missing = (symbol for symbol in wanted if symbol not in found)
                # What a stand-in does not know, the provider that failed may know.
                errors += [_symbol_error(s, answered.failure or UnknownSymbol(s)) for s in missing]
        quotes = [found[symbol] for symbol in wanted if symbol in found]
        return Quotes(quotes=quotes, errors=errors)

    async def bars(self, request: GetBars, deadline: Deadline) -> Bars:
        """A page of bars. Raises an `InvalidInput`, `UnknownSymbol` or a `ProviderFailure`."""
        symbol = symbols.parse(request.symbol)
        _require_range(request)
        cursor = None
        if request.cursor:
            cursor = cursors.decode(request.cursor, symbol=symbol, adjustment=request.adjustment)
        query = _query(request, symbol, cursor)
        answered = await self._providers.bars(query, deadline, provider=cursor.provider if cursor else None)
        return _bars(request, symbol, answered)

    async def search(self, request: SearchSymbols, deadline: Deadline) -> Instruments:
        """Instruments that match, best first."""
        answered = await self._providers.search(request.q, request.limit, deadline)
        return Instruments(data=answered.value)


def _parsed(texts: list[str]) -> tuple[list[str], list[SymbolError]]:
    """The symbols among `texts`, each once, and an error for each text that is none."""
    wanted: dict[str, None] = {}
    errors: list[SymbolError] = []
    for text in texts:
        try:
            wanted[symbols.parse(text)] = None
        except InvalidSymbol as error:
            errors.append(_symbol_error(text, error))
    return list(wanted), errors


def _symbol_error(symbol: str, error: ServiceError) -> SymbolError:
    return SymbolError(symbol=symbol, code=error.code, status=error.status, detail=error.detail)


def _with_warnings(answered: Answered[Found]) -> dict[str, Quote]:
    found = dict(answered.value.quotes)
    if answered.warnings:
        update = {"warnings": answered.warnings}
        return {symbol: quote.model_copy(update=update) for symbol, quote in found.items()}
    return found


def _require_range(request: GetBars) -> None:
    if request.start and request.end and request.end < request.start:
        raise InvalidRange


def _query(request: GetBars, symbol: str, cursor: Cursor | None) -> BarsQuery:
    start = request.start or date.min
    if cursor is not None and cursor.day < date.max:
        start = max(start, cursor.day + timedelta(days=1))
    return BarsQuery(symbol, request.adjustment, request.limit, start, request.end or date.max)


def _bars(request: GetBars, symbol: str, answered: Answered[BarsPage]) -> Bars:
    page = answered.value
    next_cursor = None
    if page.has_more and page.data:
        last = page.data[-1].t.date()
        next_cursor = Cursor(answered.source, symbol, request.adjustment, last).encode()
    return Bars(
        symbol=symbol,
        timeframe=request.timeframe,
        adjustment=request.adjustment,
        currency=page.currency,
        source=answered.source,
        as_of=page.as_of,
        stale=page.stale,
        data=page.data,
        next_cursor=next_cursor,
        warnings=answered.warnings,
    )
