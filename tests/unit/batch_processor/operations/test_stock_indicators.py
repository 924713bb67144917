"""The indicators operation."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import ValidationError

from batch_processor.operations.stock_indicators import OPERATION, IndicatorsPayload
from contracts.stocks import Bar, Bars
from gateway.batches.payload_checks import PayloadCheck
from support.operation_world import OperationWorld

FIRST = datetime(2010, 1, 4, tzinfo=UTC)


def page(closes: list[int], *, cursor: str | None = None, skip: int = 0) -> Bars:
    bars = [
        Bar(
            t=FIRST + timedelta(days=skip + i),
            o=Decimal(c),
            h=Decimal(c),
            l=Decimal(c),
            c=Decimal(c),
            v=Decimal(1),
        )
        for i, c in enumerate(closes)
    ]
    return Bars(
        symbol="AAPL",
        timeframe="1d",
        adjustment="split",
        source="test",
        as_of=FIRST,
        data=bars,
        next_cursor=cursor,
    )


async def test_the_last_value_of_each_indicator_is_given_with_its_day(world: OperationWorld) -> None:
    world.replies = [page([1, 2, 3, 4])]
    wish = IndicatorsPayload(symbol="AAPL", indicators=["sma:2", "rsi:2", "sma:9"])
    result = await OPERATION.run(wish, world.context())
    assert result == {
        "symbol": "AAPL",
        "adjustment": "split",
        "as_of": "2010-01-07",
        "values": {
            "sma:2": {"date": "2010-01-07", "value": 3.5},
            "rsi:2": {"date": "2010-01-07", "value": 100.0},
            "sma:9": None,
        },
    }


async def test_all_pages_are_asked_for(world: OperationWorld) -> None:
    world.replies = [page([1, 2], cursor="next"), page([3, 4], skip=2)]
    result = await OPERATION.run(IndicatorsPayload(symbol="AAPL", indicators=["sma:4"]), world.context())
    assert result["values"]["sma:4"]["value"] == 2.5
    assert [request.cursor for request in world.asked] == [None, "next"]


async def test_the_series_begins_at_start_but_is_warmed_up_before(world: OperationWorld) -> None:
    world.replies = [page([1, 2, 3, 4])]
    wish = IndicatorsPayload(symbol="AAPL", indicators=["sma:2"], start=date(2010, 1, 6), series=True)
    result = await OPERATION.run(wish, world.context())
    assert result["series"]["sma:2"] == [
        {"date": "2010-01-06", "value": 2.5},
        {"date": "2010-01-07", "value": 3.5},
    ]
    assert world.asked[0].start < wish.start


async def test_a_symbol_without_bars_has_no_values(world: OperationWorld) -> None:
    world.replies = [page([])]
    result = await OPERATION.run(IndicatorsPayload(symbol="AAPL", indicators=["sma:2"]), world.context())
    assert (result["as_of"], result["values"]) == (None, {"sma:2": None})


@pytest.mark.parametrize("name", ["sma", "sma:0", "rsi:1", "ema:3", "sma:1000", "sma:-1", "sma:2\n"])
def test_an_indicator_that_does_not_exist_is_refused_when_it_is_sent_and_when_it_runs(name: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        IndicatorsPayload(symbol="AAPL", indicators=[name])
    refused = PayloadCheck(OPERATION.item_schema).find({"symbol": "AAPL", "indicators": ["sma:999", name]})
    assert refused is not None
    assert refused.pointer == "/indicators/1"
    assert refused.detail.endswith(": must be sma:<days> or rsi:<days>, for example sma:20")


@pytest.mark.parametrize("name", ["sma:1", "sma:999", "rsi:2", "rsi:10", "rsi:999"])
def test_an_indicator_that_exists_is_accepted(name: str) -> None:
    item = {"symbol": "AAPL", "indicators": [name]}
    assert PayloadCheck(OPERATION.item_schema).find(item) is None
    assert IndicatorsPayload.model_validate(item).indicators == [name]


def test_a_start_after_the_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="start must not be after end"):
        IndicatorsPayload(symbol="AAPL", indicators=["sma:2"], start=date(2012, 1, 2), end=date(2012, 1, 1))
