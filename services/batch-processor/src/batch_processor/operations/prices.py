"""Prices for operations, requested from stock-data: the newest ones, and closes of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from batch_processor.operation import Context
from chassis.errors import NotFound, RemoteFailure, ServiceError
from contracts import problems
from contracts.message import Failure
from contracts.stocks import Bar, Bars, GetBars, GetQuotes, Quote, Quotes

ASK_S = 10
# A market that was closed for longer has no price of the day; New York's longest closure lasted 12 days.
_DAYS_BEFORE = 14


class NoPrice(NotFound):
    """The history of a symbol has no bar on the day, or in the days before it."""

    code = "no-price"


async def quotes(symbols: Sequence[str], context: Context) -> Mapping[str, Quote | ServiceError]:
    """Return the newest quote of each symbol, or its error."""
    reply = await context.ask(GetQuotes(symbols=list(symbols)), Quotes, timeout_s=ASK_S)
    found: dict[str, Quote | ServiceError] = {quote.symbol: quote for quote in reply.quotes}
    for error in reply.errors:
        known = problems.CATALOGUE.get(error.code)
        failure = Failure(
            code=error.code,
            status=error.status,
            title=known.title if known is not None else error.code,
            detail=error.detail,
            retryable=known is not None and known.retryable,
        )
        found[error.symbol] = RemoteFailure(failure)
    return {symbol: found.get(symbol) or NoPrice(f"There is no quote of {symbol}.") for symbol in symbols}


async def close_of(symbol: str, day: date, context: Context) -> tuple[Bar, Bars]:
    """Return the raw bar of `day`, or of the last trading day before it, with its history.

    Raise `NoPrice` when there is none, or the error of stock-data.
    """
    first = day - timedelta(days=min(_DAYS_BEFORE, (day - date.min).days))
    question = GetBars(symbol=symbol, start=first, end=day, adjustment="raw", limit=_DAYS_BEFORE + 1)
    bars = await context.ask(question, Bars, timeout_s=ASK_S)
    if not bars.data:
        raise NoPrice(f"There is no close of {symbol} from {first} to {day}.")
    return bars.data[-1], bars
