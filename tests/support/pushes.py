"""The live messages that services push to gateways."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from chassis.broker import envelope
from chassis.broker.envelope import Outgoing
from contracts import batches, stocks

NOW = datetime(2026, 1, 2, 15, 30, tzinfo=UTC)


def ticks(symbol: str, *offsets: int) -> Any:
    quotes = [
        stocks.Quote(
            symbol=symbol,
            price=Decimal(offset),
            as_of=NOW,
            source="double",
            stream=stocks.StreamPosition(epoch="e", offset=offset),
        )
        for offset in offsets
    ]
    return envelope.live(stocks.QuotesTicked(quotes=quotes), "quotes")


def bars(symbol: str, *offsets: int, **changes: Any) -> Outgoing:
    made = [
        stocks.LiveBar.model_validate(
            {
                "symbol": symbol,
                "t": NOW,
                **dict.fromkeys("ohlc", Decimal(offset)),
                "ticks": offset,
                "as_of": NOW,
                "source": "double",
                "session": "regular",
                "stream": {"epoch": "7", "offset": offset},
                **changes,
            }
        )
        for offset in offsets
    ]
    return envelope.live(stocks.BarsTicked(bars=made), stocks.BarsTicked.routing_key)


def batch(id_: str, status: str, *, kind: str = "batch", revision: int = 0) -> batches.Batch:
    fields = {"id": id_, "kind": kind, "operation": "echo", "status": status, "accepted_at": NOW}
    return batches.Batch.model_validate({**fields, "counts": {"total": 1}, "revision": revision})


def progress(id_: str, offset: int, status: str, *, kind: str = "batch") -> Outgoing:
    state = batch(id_, status, kind=kind, revision=offset)
    news = batches.BatchProgressed(batch=state, owner_id="1", offset=offset)
    return envelope.live(news, f"batch.{id_}")
