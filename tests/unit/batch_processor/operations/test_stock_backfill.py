"""The backfill operation."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from batch_processor.operations.stock_backfill import OPERATION, BackfillPayload
from contracts.stocks import BackfillBars, Backfilled
from support.operation_world import OperationWorld


async def test_the_answer_of_stock_data_is_the_result(world: OperationWorld) -> None:
    days = (date(2016, 1, 1), date(2024, 1, 31))
    kept = Backfilled(symbol="AAPL", source="alpaca", first=days[0], last=days[1], bars=2031, written=22)
    world.replies = [kept]
    result = await OPERATION.run(BackfillPayload(symbol="aapl", start=date(2016, 1, 1)), world.context())
    assert result == {
        "symbol": "AAPL",
        "source": "alpaca",
        "currency": "USD",
        "first": "2016-01-01",
        "last": "2024-01-31",
        "bars": 2031,
        "written": 22,
    }
    assert world.asked == [BackfillBars(owner_id="ann", symbol="AAPL", start=date(2016, 1, 1))]


def test_an_item_has_time_for_its_question() -> None:
    assert OPERATION.timeout_s > 60


def test_a_start_after_the_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="start must not be after end"):
        BackfillPayload(symbol="AAPL", start=date(2012, 1, 2), end=date(2012, 1, 1))
