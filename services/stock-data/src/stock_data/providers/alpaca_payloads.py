"""What Alpaca's market data answers look like, checked before anything is taken from them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class AlpacaBar(_Payload):
    """A bar: start time, open, high, low, close, volume. One that contradicts itself is refused."""

    t: AwareDatetime
    o: Positive
    h: Positive
    l: Positive  # noqa: E741 - Alpaca's own name
    c: Positive
    v: Count

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.l <= min(self.o, self.c) <= max(self.o, self.c) <= self.h:
            raise ValueError("open and close must lie between low and high")
        return self


class AlpacaTrade(_Payload):
    """The last trade: time and price."""

    t: AwareDatetime
    p: Positive


class AlpacaQuote(_Payload):
    """The best bid and ask; 0 stands for none."""

    bp: NotNegative = Decimal(0)
    ap: NotNegative = Decimal(0)


class AlpacaSnapshot(_Payload):
    """The newest state of one symbol; parts that Alpaca does not have are null."""

    latest_trade: AlpacaTrade | None = Field(default=None, alias="latestTrade")
    latest_quote: AlpacaQuote | None = Field(default=None, alias="latestQuote")
    daily_bar: AlpacaBar | None = Field(default=None, alias="dailyBar")
    previous_bar: AlpacaBar | None = Field(default=None, alias="prevDailyBar")


class AlpacaBars(_Payload):
    """A page of one symbol's bars; `bars` is null when there are none."""

    bars: list[AlpacaBar] | None
    symbol: str
    next_page_token: str | None = None


Snapshots = dict[str, AlpacaSnapshot | None]
