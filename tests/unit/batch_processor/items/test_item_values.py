"""The results of operations as JSON texts."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_processor.errors import BadResult
from batch_processor.items.item_values import write_result


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: [None, {"deep": [n]}]])
def test_a_number_that_json_does_not_have_is_no_null(number: float, wrap: Any) -> None:
    with pytest.raises(BadResult, match="not JSON"):
        write_result(wrap(number))


def test_none_is_null_also_beside_values_that_are_not_plain() -> None:
    assert write_result({"a": None, "at": datetime(2026, 1, 2, tzinfo=UTC)}) == (
        '{"a":null,"at":"2026-01-02T00:00:00+00:00"}'
    )
