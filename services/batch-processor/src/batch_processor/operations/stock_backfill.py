"""`stock.backfill`: stores the raw daily bars of one symbol per item, so that no provider is asked again."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict, Field, model_validator

from batch_processor.operation import Context, Operation, RetryPolicy
from contracts.message import Json
from contracts.scopes import Scope
from contracts.stocks import BackfillBars, Backfilled, Day, Symbol

_ASK_S = 60


class BackfillPayload(BaseModel):
    """The symbol and the days whose bars to store; without an `end`, up to yesterday."""

    model_config = ConfigDict(extra="forbid")

    symbol: Symbol
    start: Day = Field(default=date(2000, 1, 1), examples=["2016-01-01"])
    end: Day | None = None

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> BackfillPayload:
        if self.end is not None and self.start > self.end:
            raise ValueError("start must not be after end")
        return self


async def run(wish: BackfillPayload, context: Context) -> Json:
    """Return the stored range of the symbol and the number of bars written. Raise stock-data's error."""
    question = BackfillBars(owner_id=context.owner_id, symbol=wish.symbol, start=wish.start, end=wish.end)
    kept = await context.ask(question, Backfilled, timeout_s=_ASK_S)
    return kept.model_dump(mode="json")


OPERATION = Operation(
    name="stock.backfill",
    description="Keeps the raw daily bars of a symbol; only the days that are missing are asked for.",
    payload=BackfillPayload,
    run=run,
    required_scopes=frozenset({Scope.QUOTES_READ}),
    limit_key="provider:alpaca",
    retry=RetryPolicy(max_attempts=6, first_s=5, factor=3),
    chunk_size=10,
    concurrency=2,
    timeout_s=_ASK_S + 5,
)
