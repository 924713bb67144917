"""`stock.indicators`: moving averages and relative strength of one symbol per item, in another process."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch_processor.operation import Context, Operation
from batch_processor.operations import indicators
from contracts.message import Json
from contracts.scopes import Scope
from contracts.stocks import Adjustment, Bar, Bars, Day, GetBars, Symbol

_PAGE = 10_000
_PAGES = 5
_TIMEOUT_S = 10


# A moving average of one day is the close; relative strength compares two days at least.
NAME = r"^(sma:[1-9][0-9]{0,2}|rsi:([2-9]|[1-9][0-9]{1,2}))$"
Indicator = Annotated[
    str,
    Field(
        pattern=NAME,
        description="must be sma:<days> or rsi:<days>, for example sma:20",
        examples=["sma:20"],
    ),
]


class IndicatorsPayload(BaseModel):
    """Indicators of a symbol. `start` and `end` (both included) choose the days of `series`."""

    model_config = ConfigDict(extra="forbid")

    symbol: Symbol
    indicators: list[Indicator] = Field(min_length=1, max_length=20)
    start: Day | None = None
    end: Day | None = None
    adjustment: Adjustment = "split"
    series: bool = Field(default=False, description="give every day's value, not only the last")

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> IndicatorsPayload:
        if self.start and self.end and self.start > self.end:
            raise ValueError("start must not be after end")
        return self


async def run(wish: IndicatorsPayload, context: Context) -> Json:
    """Return the last values of the indicators with their days and, on request, their series."""
    since = None
    if wish.start is not None:
        # The averages need earlier trading days, 5 in 7 days.
        days_before = max(indicators.lookback(name) for name in wish.indicators) * 7 // 5 + 14
        most = (wish.start - date.min).days
        since = max(date(1900, 1, 1), wish.start - timedelta(days=min(days_before, most)))
    key = (wish.symbol, since, wish.end, wish.adjustment)
    bars = await context.share(key, lambda: _bars(wish, since, context))
    closes = [float(bar.c) for bar in bars]
    values = await context.compute(indicators.compute, closes, wish.indicators)
    days = [bar.t.date().isoformat() for bar in bars]
    wanted = [i for i, bar in enumerate(bars) if wish.start is None or bar.t.date() >= wish.start]
    series = {
        name: [{"date": days[index], "value": values[name][index]} for index in wanted]
        for name in wish.indicators
        if wish.series
    }
    last: dict[str, Json] = {}
    for name in wish.indicators:
        known = next((index for index in reversed(wanted) if values[name][index] is not None), None)
        last[name] = None if known is None else {"date": days[known], "value": values[name][known]}
    return {
        "symbol": wish.symbol,
        "adjustment": wish.adjustment,
        "as_of": days[-1] if days else None,
        "values": last,
        **({"series": series} if wish.series else {}),
    }


async def _bars(wish: IndicatorsPayload, since: date | None, context: Context) -> list[Bar]:
    found: list[Bar] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await context.ask(
            GetBars(
                symbol=wish.symbol,
                start=since,
                end=wish.end,
                adjustment=wish.adjustment,
                limit=_PAGE,
                cursor=cursor,
            ),
            Bars,
            timeout_s=_TIMEOUT_S,
        )
        found += page.data
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


OPERATION = Operation(
    name="stock.indicators",
    description="Simple moving averages and Wilder's relative strength index of a symbol's daily closes.",
    payload=IndicatorsPayload,
    run=run,
    required_scopes=frozenset({Scope.QUOTES_READ}),
    limit_key="provider:alpaca",
    chunk_size=100,
)
