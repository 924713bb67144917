"""`portfolio.valuation`: the value of the positions of one portfolio per item, now or on a day of history."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Context as Arithmetic
from decimal import Decimal, Inexact
from itertools import islice
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from batch_processor.errors import InvalidItem
from batch_processor.operation import Context, Operation
from batch_processor.operations import prices
from chassis.errors import RemoteFailure, ServiceError
from contracts.message import Failure, Json
from contracts.scopes import Scope
from contracts.stocks import Day, Symbol

MOST_POSITIONS = 200
# Closes that are requested at once.
_SIDE_BY_SIDE = 8
_FIRST_ZONE = timedelta(hours=14)
_TOO_MANY = 10**12
_NUMBER = r"^-?[0-9]{1,12}(\.[0-9]{1,8})?$"
# Symbols without a price whose reasons are in the error.
_MOST_REASONS = 10
# Products of a price and a quantity, and sums of 200 of them, have fewer digits: nothing is rounded.
_EXACT = Arithmetic(prec=80, traps=[Inexact])


def _quantity(value: object) -> Decimal:
    # From the text of a number, because a float's binary fraction has other digits.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _TOO_MANY
    text = format(Decimal(str(value)), "f") if is_number else value
    if not isinstance(text, str) or not re.fullmatch(_NUMBER, text):
        raise ValueError("must be a number, or a text, with up to 12 digits and up to 8 decimal places")
    # A zero loses its sign.
    return Decimal(text) + 0


Quantity = Annotated[
    Decimal,
    BeforeValidator(
        _quantity,
        json_schema_input_type=Annotated[float, Field(gt=-_TOO_MANY, lt=_TOO_MANY)]
        | Annotated[str, Field(pattern=_NUMBER, description="up to 12 digits and up to 8 decimal places")],
    ),
]


class Position(BaseModel):
    """A number of shares of one symbol, negative when they are owed; a text keeps every digit."""

    model_config = ConfigDict(extra="forbid")

    symbol: Symbol
    quantity: Quantity = Field(examples=["12.5"])


class Portfolio(BaseModel):
    """The positions of a portfolio, and the day on which they are valued; without a day, now.

    On a `date` the quantities are the shares of that day: prices are raw closes, before any later split.
    """

    model_config = ConfigDict(extra="forbid")

    positions: list[Position] = Field(min_length=1, max_length=MOST_POSITIONS)
    date: Day | None = Field(default=None, examples=["2005-02-25"])


@dataclass(frozen=True, slots=True)
class _Price:
    """A price with its currency, its source and its time, as the result shows them."""

    price: Decimal
    currency: str
    about: Mapping[str, Json]


async def run(portfolio: Portfolio, context: Context) -> Json:
    """Return the value of each position and the totals by currency, all of them exact, as texts.

    Raise an error that names the symbols without a price: a total without them would be wrong. Raise
    `InvalidItem` for a day in the future.
    """
    # A day is in the future only if it has not begun anywhere on earth.
    if portfolio.date is not None and portfolio.date > (datetime.now(UTC) + _FIRST_ZONE).date():
        raise InvalidItem(f"date: {portfolio.date} is in the future and has no closes yet")
    symbols = list(dict.fromkeys(position.symbol for position in portfolio.positions))
    if portfolio.date is None:
        found = await _newest(symbols, context)
    else:
        found = await _closes(symbols, portfolio.date, context)
    _require_all(found)
    totals: dict[str, Decimal] = defaultdict(Decimal)
    positions: list[Json] = []
    for position in portfolio.positions:
        price = found[position.symbol]
        assert isinstance(price, _Price)
        value = _EXACT.multiply(position.quantity, price.price)
        totals[price.currency] = _EXACT.add(totals[price.currency], value)
        positions.append(
            {
                "symbol": position.symbol,
                "quantity": format(position.quantity, "f"),
                "price": format(price.price, "f"),
                "value": format(value, "f"),
                "currency": price.currency,
                **price.about,
            }
        )
    return {
        "date": portfolio.date.isoformat() if portfolio.date else None,
        "totals": [
            {"currency": currency, "value": format(value, "f")} for currency, value in sorted(totals.items())
        ],
        "positions": positions,
    }


async def _newest(symbols: Sequence[str], context: Context) -> dict[str, _Price | ServiceError]:
    found: dict[str, _Price | ServiceError] = {}
    for symbol, quote in (await prices.quotes(symbols, context)).items():
        if isinstance(quote, ServiceError):
            found[symbol] = quote
            continue
        about = quote.model_dump(mode="json", include={"as_of", "source", "stale", "simulated", "replayed"})
        found[symbol] = _Price(quote.price, quote.currency, about)
    return found


async def _closes(symbols: Sequence[str], day: date, context: Context) -> dict[str, _Price | ServiceError]:
    room = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def close_of(symbol: str) -> _Price | ServiceError:
        async with room:
            try:
                bar, bars = await context.share((symbol, day), lambda: prices.close_of(symbol, day, context))
            except ServiceError as error:
                return error
        about = {
            "as_of": bar.t.date().isoformat(),
            "source": bars.source,
            "stale": bars.stale,
            "simulated": False,
        }
        return _Price(bar.c, bars.currency, about)

    return dict(zip(symbols, await asyncio.gather(*map(close_of, symbols)), strict=True))


def _require_all(found: Mapping[str, _Price | ServiceError]) -> None:
    """Raise an error when symbols have no price; it is retryable only when all of their errors are."""
    failed = {symbol: error for symbol, error in found.items() if isinstance(error, ServiceError)}
    if not failed:
        return
    lasting = [error for error in failed.values() if not error.retryable]
    first = (lasting or list(failed.values()))[0]
    shown = list(islice(failed.items(), _MOST_REASONS))
    reasons = " ".join(f"{symbol}: {error.detail}" for symbol, error in shown)
    more = f" And {len(failed) - len(shown)} more." if len(failed) > len(shown) else ""
    detail = f"{len(failed)} of {len(found)} symbols have no price. {reasons}{more}"
    raise RemoteFailure(
        Failure(
            code=first.code, status=first.status, title=first.title, detail=detail, retryable=first.retryable
        )
    )


OPERATION = Operation(
    name="portfolio.valuation",
    description="The value of a portfolio by currency, from the newest quotes or the raw closes of a day.",
    payload=Portfolio,
    run=run,
    required_scopes=frozenset({Scope.QUOTES_READ}),
    limit_key="provider:alpaca",
    chunk_size=50,
    concurrency=10,
)
