"""The documented shapes of Alpaca's market data, checked before anything is taken from an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)

from stock_data.errors import BadData

P = TypeVar("P")

Positive = Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
# Far from the ends of what a date can be, so that days before and after can be computed.
Time = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC))
]


@dataclass(frozen=True, slots=True)
class Malformed:
    """An element of an answer without the documented shape: what is wrong, and the symbol that it names."""

    reason: str
    symbol: str | None = None


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = "/".join(str(part) for part in first["loc"])
    return f"Alpaca's answer is not as documented at {where!r}: {first['msg']}"


def _judge(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Validate one element, and let a bad one stand for itself instead of failing its neighbours."""
    try:
        return validate(value)
    except ValidationError as error:
        named = value.get("symbol") if isinstance(value, dict) else None
        return Malformed(_describe(error), named if isinstance(named, str) else None)


def parse(adapter: TypeAdapter[P], body: bytes) -> P:
    """Return the answer in `body`. Raise `BadData` when it does not have the documented shape."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise BadData(_describe(error)) from error


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class AlpacaBar(_Payload):
    """A bar: start time, open, high, low, close, volume. One that contradicts itself is invalid."""

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


class AlpacaTrade(_Payload):
    """The last trade: time and price."""

    t: Time
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


class AlpacaSplit(_Payload):
    """A split: from `ex_date` on there are `new_rate` shares for each `old_rate` before."""

    symbol: str
    ex_date: date
    new_rate: Positive
    old_rate: Positive


# The validator stands for every type of the union, so the members beside the payload are for readers only.
JudgedSplit = Annotated[AlpacaSplit | Malformed, WrapValidator(_judge)]


class AlpacaActions(_Payload):
    """The splits of a page of corporate actions; other kinds are not asked for."""

    forward_splits: list[JudgedSplit] = Field(default_factory=list)
    reverse_splits: list[JudgedSplit] = Field(default_factory=list)


class AlpacaActionsPage(_Payload):
    """A page of corporate actions."""

    corporate_actions: AlpacaActions
    next_page_token: str | None = None


SNAPSHOTS = TypeAdapter(dict[str, Annotated[AlpacaSnapshot | Malformed | None, WrapValidator(_judge)]])
BARS = TypeAdapter(AlpacaBars)
ACTIONS = TypeAdapter(AlpacaActionsPage)
