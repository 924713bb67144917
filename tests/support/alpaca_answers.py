"""The Alpaca provider on a double of its API: the parts that the tests of its answers share."""

from __future__ import annotations

from datetime import date
from typing import Any

from chassis.deadlines import Deadline
from stock_data.providers.alpaca import AlpacaProvider
from stock_data.providers.provider import DailyBarsQuery
from support.doubles import alpaca as double
from support.doubles.upstream import UpstreamAnswer, answer_json

QUERY = DailyBarsQuery("AAPL", "raw", 100, date(2024, 1, 1), date(2024, 1, 31))
SNAPSHOTS = "/v2/stocks/snapshots"
TRADED_AT = "2024-01-03T19:59:59.123456789Z"
EMPTY_WITH_MORE = answer_json({"bars": None, "symbol": "AAPL", "next_page_token": "MjAyNC0wMS0wNQ=="})


def bars_of(*bars: dict[str, Any]) -> UpstreamAnswer:
    """Return the answer with `bars` of AAPL."""
    return answer_json({"bars": bars, "symbol": "AAPL"})


def provider_of(url: str, **changes: Any) -> AlpacaProvider:
    """Return a provider for the double at `url`."""
    values = {"key_id": double.KEY_ID, "secret": double.SECRET, "feed": "iex", "timeout_s": 2, **changes}
    return AlpacaProvider(base_url=url, **values)


def soon() -> Deadline:
    """Return a deadline that no answer of the double reaches."""
    return Deadline.after(10)
