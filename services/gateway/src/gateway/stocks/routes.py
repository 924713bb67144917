"""`/v1/stocks`: the declared endpoints."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.errors import NotFound, Overloaded, TooManyAtOnce, Unavailable
from contracts import problems
from contracts.scopes import Scope
from contracts.stocks import Bar, Bars, Instruments, Quote
from gateway.http.endpoints import CONTENT_TAG, Endpoint, get, json, rows
from gateway.http.rates import RateClass
from gateway.stocks.inputs import QuoteList
from gateway.stocks.service import StockService

# Errors of providers, which stock-data passes on.
_PROVIDERS = tuple(
    problems.of(f"provider-{kind}")
    for kind in ("auth", "quota", "share", "entitlement", "refused", "blocked", "down", "bad-data")
)
OF_A_SYMBOL = (problems.of("unknown-symbol"), problems.of("invalid-symbol"), *_PROVIDERS)
OF_A_QUOTE = {200: json(Quote, headers={"ETag": "the version of the quote, for If-None-Match"})}
_PAGE_OF_BARS = rows(
    Bars,
    item=Bar,
    headers=CONTENT_TAG,
    optional={"X-Next-Cursor": "of CSV and NDJSON: the cursor of the next page, if there is one"},
)

_BRIEFLY = "private, max-age=1"


def endpoints(service: StockService) -> Iterator[Endpoint]:
    """Yield the endpoints of quotes, bars and search."""
    yield get(
        "/v1/stocks/<symbol>",
        service.get,
        name="getQuote",
        summary="Read the newest quote of a symbol",
        tag="Stocks",
        scope=Scope.QUOTES_READ,
        answers=OF_A_QUOTE,
        errors=(NotFound, Unavailable, *OF_A_SYMBOL),
        cache=_BRIEFLY,
        rate=RateClass.QUOTE,
    )
    yield get(
        "/v1/stocks",
        service.list,
        name="listQuotes",
        summary="Read the newest quotes of up to 200 symbols",
        tag="Stocks",
        scope=Scope.QUOTES_READ,
        answers={200: json(QuoteList)},
        errors=(Unavailable,),
        cache=_BRIEFLY,
        rate=RateClass.QUOTE,
    )
    yield from _history(service)


def _history(service: StockService) -> Iterator[Endpoint]:
    yield get(
        "/v1/stocks/<symbol>/bars",
        service.bars,
        name="listBars",
        summary="Read a page of daily bars, oldest first",
        tag="Stocks",
        scope=Scope.QUOTES_READ,
        answers={200: _PAGE_OF_BARS},
        errors=(
            *(NotFound, TooManyAtOnce, Overloaded, Unavailable, problems.of("invalid-cursor")),
            *OF_A_SYMBOL,
        ),
        cache="private, max-age=60",
    )
    yield get(
        "/v1/stocks/search",
        service.search,
        name="searchSymbols",
        summary="Find symbols by ticker or company name",
        tag="Stocks",
        scope=Scope.QUOTES_READ,
        answers={200: json(Instruments)},
        errors=(Unavailable,),
    )
