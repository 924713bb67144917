"""The inputs and answers of stocks."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from chassis.errors import InvalidInput
from contracts.stocks import LONGEST_SYMBOL, SYMBOL, Adjustment, Day, Quote, Symbol, Timeframe
from gateway.http.replies import TableFormat

MOST_SYMBOLS = 200

Symbols = Annotated[
    list[Symbol],
    BeforeValidator(lambda text: [part for part in map(str.strip, text.split(",")) if part]),
    Field(
        min_length=1,
        max_length=MOST_SYMBOLS,
        description="symbols, separated by commas",
        examples=["AAPL,MSFT"],
    ),
    AfterValidator(lambda symbols: list(dict.fromkeys(symbols))),
]


class QuotesQuery(BaseModel):
    """The query of `GET /v1/stocks`."""

    model_config = ConfigDict(extra="forbid")
    symbols: Symbols


class BarsQuery(BaseModel):
    """The query of `GET /v1/stocks/{symbol}/bars`."""

    model_config = ConfigDict(extra="forbid")
    timeframe: Timeframe = "1d"
    start: Day | None = None
    end: Day | None = None
    adjustment: Adjustment = "raw"
    limit: int = Field(default=1000, ge=1, le=10_000)
    cursor: str | None = Field(default=None, max_length=500)
    format: TableFormat | None = None

    @model_validator(mode="after")
    def _start_is_first(self) -> BarsQuery:
        if self.start and self.end and self.end < self.start:
            raise ValueError("end must not be before start")
        return self


class SearchQuery(BaseModel):
    """The query of `GET /v1/stocks/search`."""

    model_config = ConfigDict(extra="forbid")
    q: str = Field(min_length=1, max_length=100, examples=["apple"])
    limit: int = Field(default=20, ge=1, le=100)


class SymbolProblem(BaseModel):
    """The reason why one symbol of several has no quote; `code` is the last part of the problem's type."""

    symbol: str
    code: str
    detail: str


class QuoteList(BaseModel):
    """Quotes in the requested order, and the symbols without one."""

    quotes: list[Quote]
    errors: list[SymbolProblem]


def symbol_of(text: str) -> str:
    """Return `text` as a symbol in upper case. Raise `InvalidInput`."""
    if len(text) > LONGEST_SYMBOL or not re.fullmatch(SYMBOL, text):
        raise InvalidInput(
            "A symbol must have 1 to 15 letters, digits or the characters . ^ = -,"
            " at least one a letter or digit"
        )
    return text.upper()
