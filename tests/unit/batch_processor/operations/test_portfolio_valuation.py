"""The valuation of portfolios."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from batch_processor.errors import InvalidItem
from batch_processor.items import item_values
from batch_processor.operations.portfolio_valuation import MOST_POSITIONS, OPERATION, Portfolio
from chassis.errors import ServiceError
from contracts.stocks import Bar, Bars, Quote, Quotes, SymbolError
from support.operation_world import OperationWorld

DAY = datetime(2005, 2, 25, tzinfo=UTC)


def quote(symbol: str, price: str, currency: str = "USD") -> Quote:
    return Quote(symbol=symbol, price=Decimal(price), currency=currency, as_of=DAY, source="replay")


def failed(symbol: str, code: str) -> SymbolError:
    return SymbolError(symbol=symbol, code=code, status=503, detail=f"{symbol} does not work.")


def bars(symbol: str, *closes: str) -> Bars:
    data = []
    for n, close in enumerate(map(Decimal, closes)):
        at = DAY + timedelta(days=n + 1 - len(closes))
        data.append(Bar(t=at, o=close, h=close, l=close, c=close, v=Decimal(1)))
    return Bars(symbol=symbol, timeframe="1d", adjustment="raw", source="embedded", as_of=DAY, data=data)


def portfolio(text: str) -> Portfolio:
    found = item_values.read_payload(Portfolio, text)
    assert isinstance(found, Portfolio)
    return found


def of(*positions: tuple[str, Any], **more: Any) -> Portfolio:
    held = [{"symbol": symbol, "quantity": quantity} for symbol, quantity in positions]
    return portfolio(orjson.dumps({"positions": held, **more}).decode())


async def test_values_are_exact_and_added_up_by_currency(world: OperationWorld) -> None:
    world.replies = [Quotes(quotes=[quote("AAPL", "0.1"), quote("IBM", "97.36"), quote("SAP", "3", "EUR")])]
    held = of(("AAPL", "999999999999.99999999"), ("ibm", 0.3), ("SAP", -2), ("AAPL", 3))
    result = await OPERATION.run(held, world.context())
    assert [row["value"] for row in result["positions"]] == [
        "99999999999.999999999",
        "29.208",
        "-6",
        "0.3",
    ]
    assert result["totals"] == [
        {"currency": "EUR", "value": "-6"},
        {"currency": "USD", "value": "100000000029.507999999"},
    ]
    assert result["date"] is None
    assert result["positions"][1] == {
        "symbol": "IBM",
        "quantity": "0.3",
        "price": "97.36",
        "value": "29.208",
        "currency": "USD",
        "as_of": "2005-02-25T00:00:00Z",
        "source": "replay",
        "stale": False,
        "simulated": False,
        "replayed": None,
    }
    [question] = world.asked
    assert question.symbols == ["AAPL", "IBM", "SAP"]


async def test_a_day_is_valued_at_its_raw_close_or_the_last_one_before(world: OperationWorld) -> None:
    world.replies = [bars("AAPL", "88.99", "88.9")]
    result = await OPERATION.run(of(("AAPL", 10), date="2005-02-27"), world.context())
    assert (result["date"], result["totals"]) == ("2005-02-27", [{"currency": "USD", "value": "889.0"}])
    assert result["positions"][0]["as_of"] == "2005-02-25"
    [question] = world.asked
    assert (question.adjustment, question.end, question.start) == (
        "raw",
        date(2005, 2, 27),
        date(2005, 2, 13),
    )


async def test_a_portfolio_with_a_symbol_that_has_no_close_is_not_valued(world: OperationWorld) -> None:
    world.replies = [bars("AAPL", "88.9"), bars("FB")]
    with pytest.raises(
        ServiceError, match=r"1 of 2 symbols have no price\. FB: There is no close of FB"
    ) as found:
        await OPERATION.run(of(("AAPL", 10), ("FB", 1), date="2005-02-25"), world.context())
    assert (found.value.code, found.value.retryable) == ("no-price", False)


@pytest.mark.parametrize(
    ("codes", "expected", "retryable"),
    [
        (["provider-down", "provider-quota"], "provider-down", True),
        (["provider-down", "unknown-symbol"], "unknown-symbol", False),
    ],
)
async def test_an_item_is_tried_again_only_when_that_can_help_all_its_symbols(
    world: OperationWorld, codes: list[str], expected: str, retryable: bool
) -> None:
    symbols = [f"S{n}" for n in range(len(codes))]
    world.replies = [
        Quotes(quotes=[], errors=[failed(s, code) for s, code in zip(symbols, codes, strict=True)])
    ]
    with pytest.raises(ServiceError) as found:
        await OPERATION.run(of(*((symbol, 1) for symbol in symbols)), world.context())
    assert (found.value.code, found.value.retryable) == (expected, retryable)
    assert all(symbol in found.value.detail for symbol in symbols)


async def test_only_some_reasons_of_many_symbols_are_shown(world: OperationWorld) -> None:
    symbols = [f"S{n}" for n in range(50)]
    world.replies = [Quotes(quotes=[], errors=[failed(symbol, "provider-down") for symbol in symbols])]
    with pytest.raises(ServiceError, match="50 of 50 symbols have no price") as found:
        await OPERATION.run(of(*((symbol, 1) for symbol in symbols)), world.context())
    assert found.value.detail.endswith("S9 does not work. And 40 more.")


async def test_the_first_days_of_the_calendar_can_be_asked_for(world: OperationWorld) -> None:
    world.replies = [bars("AAPL", "1")]
    await OPERATION.run(of(("AAPL", 10), date="0001-01-02"), world.context())
    assert world.asked[0].start == date.min


@pytest.mark.parametrize("quantity", ["true", '"1e3"', "1e12", '"1.123456789"', "null", "[]", '""', "1e-9"])
def test_an_invalid_quantity_is_refused_with_its_place(quantity: str) -> None:
    with pytest.raises(InvalidItem, match=r"positions\.0\.quantity: .*must be a number, or a text"):
        portfolio(f'{{"positions":[{{"symbol":"AAPL","quantity":{quantity}}}]}}')


def test_a_zero_has_no_sign() -> None:
    assert str(of(("AAPL", "-0")).positions[0].quantity) == "0"


def test_the_number_of_positions_is_limited() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        Portfolio(positions=[])
    with pytest.raises(InvalidItem, match="at most 200"):
        of(*[("AAPL", 1)] * (MOST_POSITIONS + 1))


async def test_a_day_that_has_not_come_has_no_value(world: OperationWorld) -> None:
    held = of(("AAPL", 1), date="9999-12-30")
    with pytest.raises(InvalidItem, match="is in the future"):
        await OPERATION.run(held, world.context())
    assert world.asked == []
