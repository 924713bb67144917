"""Messages of stock-data: quotes, bars, search and live ticks. Prices are in `currency`, times in UTC."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field

from contracts.message import AS_NUMBER, Contract, LiveMessage, Moment, Price, Reply, Request
from contracts.times import Day
from contracts.topology import STOCK_DATA

Adjustment = Literal["raw", "split", "dividend", "all"]
Timeframe = Literal["1d"]
Session = Literal["pre", "regular", "post", "closed"]

# No more digits than a bigint of PostgreSQL always holds.
_EPOCH_NUMBER = re.compile(r"[0-9]{1,18}")


# A number of shares, possibly fractional. A whole number is written as an integer, because the previous
# release reads integers only.
Volume = Annotated[Decimal, AS_NUMBER]

# At least one letter or digit: `..` would change the path of a provider's URL. Longer texts match, too.
SYMBOL = r"^[.^=-]*[A-Za-z0-9][A-Za-z0-9.^=-]*$"
LONGEST_SYMBOL = 15
# A symbol as a caller writes it, in the spelling that all services use.
Symbol = Annotated[
    str,
    Field(
        pattern=SYMBOL,
        max_length=LONGEST_SYMBOL,
        description=(
            "a ticker symbol: 1 to 15 letters, digits or the characters . ^ = -,"
            " at least one a letter or digit"
        ),
        examples=["AAPL"],
    ),
    AfterValidator(str.upper),
]


class StreamPosition(Contract):
    """The place of a quote in the feed.

    Within an epoch, offsets count the ticks of a symbol from 1. Each leader of the feed begins a new epoch.
    Its name is a decimal number that increases with each leader, so epochs are ordered by number: see
    `is_later`.
    """

    epoch: str
    offset: int


def epoch_number(epoch: str) -> int | None:
    """Return the number by which `epoch` is ordered, or None when it has none."""
    return int(epoch) if _EPOCH_NUMBER.fullmatch(epoch) else None


def is_later(epoch: str, offset: int, *, than_epoch: str, than_offset: int) -> bool:
    """Return whether a position of a symbol follows a known one, so that its quote replaces the known quote.

    A late tick of a former leader has a lower epoch, so it never does. Epochs that are not numbers come from
    a release that did not order them: then any different epoch counts as later.
    """
    if epoch == than_epoch:
        return offset > than_offset
    number, than_number = epoch_number(epoch), epoch_number(than_epoch)
    return number is None or than_number is None or number > than_number


class Freshness(NamedTuple):
    """The age and the delay of a quote in seconds, and whether it is stale, at the time of the response."""

    age_s: float
    delayed_by_s: float
    stale: bool


def freshness(as_of: datetime, *, now: datetime, stale_after_s: float, delay_s: float = 0.0) -> Freshness:
    """Return the freshness of a feed's quote at `now`; compute it for each response, and never store it.

    Up to `stale_after_s` seconds the quote has the usual delay of its source (`delay_s`, 0 for a live feed).
    An older one is stale and delayed by its whole age. The age is never negative, even if this clock is
    behind that of the sender.
    """
    age_s = max(0.0, round((now - as_of).total_seconds(), 3))
    if age_s <= stale_after_s:
        return Freshness(age_s, delay_s, stale=False)
    return Freshness(age_s, max(age_s, delay_s), stale=True)


class Quote(Contract):
    """The newest price of a symbol, with its source and its age.

    `previous_close` is the close of the session before the day of the last trade, adjusted to the shares of
    that day, and `change` is measured from it. `open`, `high`, `low` and `volume` belong to the day of the
    last trade. Fields that are not known for exactly these days are null.
    """

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
    volume: Volume | None = None
    currency: str = "USD"
    as_of: Moment
    delayed_by_s: float = 0
    source: str
    stale: bool = False
    simulated: bool = False
    session: Session = "closed"
    stream: StreamPosition | None = None
    # The historical time that a replay shows at `as_of`.
    replayed: Moment | None = None
    warnings: list[str] = Field(default_factory=list)


class SymbolError(Contract):
    """The reason why one of several symbols failed: `code` is the last part of the problem type.

    `suggestions` are known symbols with a spelling close to an unknown one.
    """

    symbol: str
    code: str
    status: int
    detail: str
    suggestions: list[str] = Field(default_factory=list)
    retry_after_s: float | None = None


class Quotes(Reply):
    """Quotes in the order asked for, without those in `errors`."""

    quotes: list[Quote]
    errors: list[SymbolError] = Field(default_factory=list)


class GetQuotes(Request):
    """Ask for the quotes of up to 200 symbols. A symbol that fails is named in `errors`."""

    message_type: ClassVar[str] = "stocks.get-quotes.v1"
    reply: ClassVar[type[Reply]] = Quotes
    service: ClassVar[str] = STOCK_DATA
    symbols: list[str] = Field(min_length=1, max_length=200)


class Bar(Contract):
    """One bar: start time, open, high, low, close, volume."""

    t: Moment
    o: Price
    h: Price
    l: Price  # noqa: E741 - OHLCV's own name
    c: Price
    v: Volume
    factor: Price | None = None


class Coverage(Contract):
    """The first and the last day of a provider's history of a symbol; null where it is not known."""

    first: date | None = None
    last: date | None = None


class Bars(Reply):
    """A page of bars; `next_cursor` asks for the following page and is null on the last one.

    Each bar's `factor` is the number by which its raw prices were multiplied (1 for raw). `repeated` are the
    times of bars whose four raw prices all equal those of the bar before, which is rare and may be a gap in
    the data. `coverage` shows why a range is empty or ends early; a page without bars also says so in
    `warnings`.
    """

    symbol: str
    timeframe: Timeframe
    adjustment: Adjustment
    currency: str = "USD"
    source: str
    as_of: Moment
    stale: bool = False
    data: list[Bar]
    repeated: list[Moment] = Field(default_factory=list)
    coverage: Coverage | None = None
    next_cursor: str | None = None
    warnings: list[str] = Field(default_factory=list)


class GetBars(Request):
    """Ask for a page of bars, oldest first, of the days `start` to `end` (both included)."""

    message_type: ClassVar[str] = "stocks.get-bars.v1"
    reply: ClassVar[type[Reply]] = Bars
    service: ClassVar[str] = STOCK_DATA
    symbol: str
    timeframe: Timeframe = "1d"
    start: Day | None = None
    end: Day | None = None
    adjustment: Adjustment = "raw"
    limit: int = Field(default=1000, ge=1, le=10_000)
    cursor: str | None = None


class Backfilled(Reply):
    """The raw bars of a symbol that are stored after a backfill: all days from `first` to `last`.

    `bars` counts those of the requested range, `written` those that were not stored before. Nothing is
    written for the bundled history.
    """

    symbol: str
    source: str
    currency: str = "USD"
    first: date | None = None
    last: date | None = None
    bars: int
    written: int


class BackfillBars(Request):
    """Fetch and store the raw bars of the days `start` to `end` (both included) that are not stored yet.

    Owners take turns, and each has a share of the stored bars.
    """

    message_type: ClassVar[str] = "stocks.backfill-bars.v1"
    reply: ClassVar[type[Reply]] = Backfilled
    service: ClassVar[str] = STOCK_DATA
    owner_id: str = ""
    symbol: str
    start: Day
    end: Day | None = None


class Instrument(Contract):
    """A company or fund that is traded under a symbol, and the days of its history."""

    symbol: str
    name: str
    exchange: str
    currency: str = "USD"
    first_bar: date | None = None
    last_bar: date | None = None


class Instruments(Reply):
    """The matches of a search."""

    data: list[Instrument]


class SearchSymbols(Request):
    """Ask for symbols whose ticker or company name matches `q`, best first."""

    message_type: ClassVar[str] = "stocks.search.v1"
    reply: ClassVar[type[Reply]] = Instruments
    service: ClassVar[str] = STOCK_DATA
    q: str = Field(min_length=1, max_length=100)
    limit: int = Field(default=20, ge=1, le=100)


class QuotesTicked(LiveMessage):
    """New quotes of the feed, pushed to every gateway (exchange `live`, routing key `quotes`)."""

    message_type: ClassVar[str] = "stocks.ticked.v1"
    routing_key: ClassVar[str] = "quotes"
    senders: ClassVar[tuple[str, ...]] = ("stock-data",)
    receivers: ClassVar[tuple[str, ...]] = ("gateway", "stock-data")
    quotes: list[Quote]


class LiveBar(Contract):
    """The current state of a one-minute bar of the feed; `t` is the start of the minute.

    `v` is the volume within it, null where the feed reports none. A `closed` bar no longer changes. A
    `partial` one began before the feed that built it: its open, high, low and volume cover only the observed
    part. `as_of` is the time of its newest tick, and `replayed` the historical time that this tick shows.
    Offsets of `stream` count the publications of a symbol's bars from 1.
    """

    symbol: str
    t: Moment
    o: Price
    h: Price
    l: Price  # noqa: E741 - OHLCV's own name
    c: Price
    v: Volume | None = None
    ticks: int
    closed: bool = False
    partial: bool = False
    currency: str = "USD"
    as_of: Moment
    source: str
    simulated: bool = False
    session: Session = "closed"
    stream: StreamPosition
    replayed: Moment | None = None


class BarsTicked(LiveMessage):
    """Bars of the current minute that have changed or closed (exchange `live`, routing key `bars`)."""

    message_type: ClassVar[str] = "stocks.bars-ticked.v1"
    routing_key: ClassVar[str] = "bars"
    senders: ClassVar[tuple[str, ...]] = ("stock-data",)
    bars: list[LiveBar]


__all__ = [
    "LONGEST_SYMBOL",
    "SYMBOL",
    "Adjustment",
    "BackfillBars",
    "Backfilled",
    "Bar",
    "Bars",
    "BarsTicked",
    "Coverage",
    "Day",
    "Freshness",
    "GetBars",
    "GetQuotes",
    "Instrument",
    "Instruments",
    "LiveBar",
    "Quote",
    "Quotes",
    "QuotesTicked",
    "SearchSymbols",
    "Session",
    "StreamPosition",
    "Symbol",
    "SymbolError",
    "Timeframe",
    "Volume",
    "epoch_number",
    "freshness",
    "is_later",
]
