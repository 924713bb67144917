"""The documented shapes of Alpaca's market data, validated before an answer is used."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, TypeAdapter, model_validator

from stock_data.providers.payloads import Malformed, NotNegative, Payload, Positive, Time, judged

# The most elements that are asked for at once. A megabyte holds half a million that are none, and an error
# for each of them would take a kilobyte and 40 µs.
MOST_BARS = 10_000
MOST_ACTIONS = 1_000
_MOST_SNAPSHOTS = 1_000
# More than any split that ever was; a rate beyond it is a mistake.
_MOST_SHARES = Decimal(1_000_000)


class AlpacaBar(Payload):
    """A bar: start time, open, high, low, close, volume. A bar that contradicts itself is invalid."""

    t: Time
    o: Positive
    h: Positive
    l: Positive  # noqa: E741 - Alpaca's own name
    c: Positive
    v: NotNegative

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        if not self.l <= min(self.o, self.c) <= max(self.o, self.c) <= self.h:
            raise ValueError("open and close must lie between low and high")
        return self


class AlpacaTrade(Payload):
    """The last trade: time and price."""

    t: Time
    p: Positive


class AlpacaQuote(Payload):
    """The best bid and ask; 0 stands for none."""

    bp: NotNegative = Decimal(0)
    ap: NotNegative = Decimal(0)


class AlpacaSnapshot(Payload):
    """The newest state of one symbol; parts that Alpaca does not have are null."""

    latest_trade: AlpacaTrade | None = Field(default=None, alias="latestTrade")
    latest_quote: AlpacaQuote | None = Field(default=None, alias="latestQuote")
    daily_bar: AlpacaBar | None = Field(default=None, alias="dailyBar")
    previous_bar: AlpacaBar | None = Field(default=None, alias="prevDailyBar")


class AlpacaBars(Payload):
    """A page of one symbol's bars; `bars` is null when there are none."""

    bars: list[AlpacaBar] | None = Field(max_length=MOST_BARS, fail_fast=True)
    symbol: str
    next_page_token: str | None = None


class AlpacaSplit(Payload):
    """A split: from `ex_date` on there are `new_rate` shares for each `old_rate` before."""

    symbol: str
    ex_date: date
    new_rate: Positive
    old_rate: Positive

    @model_validator(mode="after")
    def _require_possible(self) -> Self:
        if not 1 / _MOST_SHARES <= self.ratio <= _MOST_SHARES:
            raise ValueError(f"a share must not become more than {_MOST_SHARES}, or a smaller part")
        return self

    @property
    def ratio(self) -> Decimal:
        """The number of shares for each one before."""
        return self.new_rate / self.old_rate


# The validator replaces that of the whole union, so the members beside the payload are for readers only.
JudgedSplit = Annotated[AlpacaSplit | Malformed, judged()]


class AlpacaActions(Payload):
    """The splits of a page of corporate actions; other kinds are not requested."""

    forward_splits: list[JudgedSplit] = Field(default_factory=list, max_length=MOST_ACTIONS)
    reverse_splits: list[JudgedSplit] = Field(default_factory=list, max_length=MOST_ACTIONS)


class AlpacaActionsPage(Payload):
    """A page of corporate actions."""

    corporate_actions: AlpacaActions
    next_page_token: str | None = None


JudgedSnapshot = Annotated[AlpacaSnapshot | Malformed | None, judged()]
SNAPSHOTS = TypeAdapter(Annotated[dict[str, JudgedSnapshot], Field(max_length=_MOST_SNAPSHOTS)])
BARS = TypeAdapter(AlpacaBars)
ACTIONS = TypeAdapter(AlpacaActionsPage)
