"""Messages of stock-data: quotes, bars, search and live ticks. Prices are in `currency`, times in UTC."""

from __future__ import annotations

from datetime import date
from typing import ClassVar, Literal

from pydantic import Field

from contracts.message import Contract, Message, Moment, Price, Reply, Request
from contracts.topology import STOCK_DATA

Adjustment = Literal["raw", "split", "dividend", "all"]
Timeframe = Literal["1d"]
Session = Literal["pre", "regular", "post", "closed"]


class StreamPosition(Contract):
    """Where in the feed a quote stands; a new epoch starts the offsets again."""

    epoch: str
    offset: int


class Quote(Contract):
    """The newest price of a symbol, where it comes from and how old it is."""

    symbol: str
    price: Price
    bid: Price | None = None
    ask: Price | None = None
    open: Price | None = None
    high: Price | None = None
    low: Price | None = None
    previous_close: Price | None = None
    change: Price | None = None
    change_percent: Price | None = None
    volume: int | None = None
    currency: str = "USD"
    as_of: Moment
    delayed_by_s: float = 0
    source: str
    stale: bool = False
    simulated: bool = False
    session: Session = "closed"
    stream: StreamPosition | None = None
    # The moment in history that a replay shows at `as_of`.
    replayed: Moment | None = None
    warnings: list[str] = Field(default_factory=list)


class SymbolError(Contract):
    """Why one symbol of several has no answer: `code` is the problem type's last word."""

    symbol: str
    code: str
    status: int
    detail: str


class GetQuotes(Request):
    """Ask for the quotes of up to 200 symbols. A symbol that fails is named in `errors`."""

    message_type: ClassVar[str] = "stocks.get-quotes.v1"
    service: ClassVar[str] = STOCK_DATA
    symbols: list[str] = Field(min_length=1, max_length=200)


class Quotes(Reply):
    """Quotes in the order asked for, without those in `errors`."""

    quotes: list[Quote]
    errors: list[SymbolError] = Field(default_factory=list)


class Bar(Contract):
    """One bar: start time, open, high, low, close, volume."""

    t: Moment
    o: Price
    h: Price
    l: Price  # noqa: E741 - OHLCV's own name
    c: Price
    v: int
    factor: Price | None = None


class GetBars(Request):
    """Ask for a page of bars, oldest first, of the days `start` to `end` (both included)."""

    message_type: ClassVar[str] = "stocks.get-bars.v1"
    service: ClassVar[str] = STOCK_DATA
    symbol: str
    timeframe: Timeframe = "1d"
    start: date | None = None
    end: date | None = None
    adjustment: Adjustment = "raw"
    limit: int = Field(default=1000, ge=1, le=10_000)
    cursor: str | None = None


class Bars(Reply):
    """A page of bars; `next_cursor` asks for the following page and is null on the last one.

    Each bar's `factor` is what its raw prices were multiplied with (1 for raw).
    """

    symbol: str
    timeframe: Timeframe
    adjustment: Adjustment
    currency: str = "USD"
    source: str
    as_of: Moment
    stale: bool = False
    data: list[Bar]
    next_cursor: str | None = None
    warnings: list[str] = Field(default_factory=list)


class SearchSymbols(Request):
    """Ask for symbols whose ticker or company name matches `q`, best first."""

    message_type: ClassVar[str] = "stocks.search.v1"
    service: ClassVar[str] = STOCK_DATA
    q: str = Field(min_length=1, max_length=100)
    limit: int = Field(default=20, ge=1, le=100)


class Instrument(Contract):
    """What is traded under a symbol, and the days history exists for."""

    symbol: str
    name: str
    exchange: str
    currency: str = "USD"
    first_bar: date | None = None
    last_bar: date | None = None


class Instruments(Reply):
    """The matches of a search."""

    data: list[Instrument]


class QuotesTicked(Message):
    """New quotes of the feed, pushed to every gateway (exchange `live`, routing key `quotes`)."""

    message_type: ClassVar[str] = "stocks.ticked.v1"
    routing_key: ClassVar[str] = "quotes"
    quotes: list[Quote]


__all__ = [
    "Adjustment",
    "Bar",
    "Bars",
    "GetBars",
    "GetQuotes",
    "Instrument",
    "Instruments",
    "Quote",
    "Quotes",
    "QuotesTicked",
    "SearchSymbols",
    "Session",
    "StreamPosition",
    "SymbolError",
    "Timeframe",
]
