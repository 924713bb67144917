"""The quote operation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from batch_processor.execution.contexts import SharedValues
from batch_processor.operation import Context
from batch_processor.operations.stock_quote import OPERATION, QuotePayload
from chassis.errors import ServiceError
from contracts.stocks import Quote, Quotes, SymbolError
from support.operation_world import OperationWorld

NOW = datetime(2026, 1, 2, 15, 30, tzinfo=UTC)


def quote(symbol: str, price: str = "101.25") -> Quote:
    return Quote(symbol=symbol, price=Decimal(price), as_of=NOW, source="replay", simulated=True)


def unknown(symbol: str) -> SymbolError:
    detail = f"The symbol {symbol} is not known."
    return SymbolError(symbol=symbol, code="unknown-symbol", status=404, detail=detail)


async def test_the_quote_has_the_shape_of_the_route(world: OperationWorld) -> None:
    world.replies = [Quotes(quotes=[quote("AAPL")])]
    result = await OPERATION.run(QuotePayload(symbol="aapl"), world.context())
    assert (result["symbol"], result["price"], result["currency"]) == ("AAPL", 101.25, "USD")
    assert result == quote("AAPL").model_dump(mode="json")


async def test_items_at_work_together_share_one_question_and_each_has_its_own_error(
    world: OperationWorld,
) -> None:
    world.replies = [Quotes(quotes=[quote("IBM"), quote("AAPL")], errors=[unknown("NOPE")])]
    shared = SharedValues()

    def context(position: int) -> Context:
        made = world.context(position)
        return Context(**{**{name: getattr(made, name) for name in made.__slots__}, "share": shared.share})

    items = enumerate(("AAPL", "NOPE", "IBM"))
    runs = (OPERATION.run(QuotePayload(symbol=symbol), context(position)) for position, symbol in items)
    first, second, third = await asyncio.gather(*runs, return_exceptions=True)
    assert [first, third] == [quote(symbol).model_dump(mode="json") for symbol in ("AAPL", "IBM")]
    assert isinstance(second, ServiceError)
    assert (second.code, second.retryable) == ("unknown-symbol", False)
    assert [request.symbols for request in world.asked] == [["AAPL", "NOPE", "IBM"]]


async def test_a_quote_that_was_not_answered_for_is_an_error(world: OperationWorld) -> None:
    world.replies = [Quotes(quotes=[])]
    with pytest.raises(ServiceError, match="no quote of AAPL") as found:
        await OPERATION.run(QuotePayload(symbol="AAPL"), world.context())
    assert found.value.code == "no-price"


@pytest.mark.parametrize("symbol", ["", "A B", "ÄPPEL", "A" * 16])
def test_an_invalid_symbol_is_refused(symbol: str) -> None:
    with pytest.raises(ValidationError, match=r"should match pattern|at most 15 characters"):
        QuotePayload(symbol=symbol)
