"""`stock.quote`: the newest quote of one symbol per item. Items that run together share a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from batch_processor.operation import Context, Operation
from batch_processor.operations import prices
from chassis.broker.coalescing import Coalescer
from contracts.message import Json
from contracts.scopes import Scope
from contracts.stocks import Quote, Symbol

_NAME = "stock.quote"


class QuotePayload(BaseModel):
    """The symbol to quote."""

    model_config = ConfigDict(extra="forbid")

    symbol: Symbol


async def run(wish: QuotePayload, context: Context) -> Json:
    """Return the quote, in the shape of `GET /v1/stocks/{symbol}`. Raise the error of its symbol."""

    async def ask(symbols: Sequence[str]) -> Mapping[str, Quote | Exception]:
        return await prices.quotes(symbols, context)

    async def make() -> Coalescer[Quote]:
        return Coalescer(_NAME, ask)

    together = await context.share(_NAME, make)
    quote = await together.get(wish.symbol, prices.ASK_S)
    return quote.model_dump(mode="json")


OPERATION = Operation(
    name=_NAME,
    description="The newest quote of a symbol, as `GET /v1/stocks/{symbol}` answers it.",
    payload=QuotePayload,
    run=run,
    required_scopes=frozenset({Scope.QUOTES_READ}),
    limit_key="provider:alpaca",
)
