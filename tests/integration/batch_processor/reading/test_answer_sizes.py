"""Answers stay small however often items were retried, and however many error codes they have."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import orjson

from batch_processor.batches.batch_repository import MOST_ATTEMPTS, MOST_CODES
from batch_processor.reading.answers import BatchAnswers
from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from contracts.batch_items import ListItems
from contracts.batches import CreateBatch, GetBatch, Kind, ListBatches
from contracts.items import Item
from support.batch_engine import BatchEngine

_MOST_BYTES = 1024 * 1024
_RETRIED = """
    INSERT INTO attempts (batch_id, position, nth, code, detail)
    SELECT $1, position, nth, 'no', rpad(nth::text || ' ', 900, 'x')
    FROM generate_series(0, $2 - 1) AS position, generate_series(1, 1500) AS nth
"""
_ENDED = """
    UPDATE batches SET status = 'failed', failed = received, started_at = now(), finished_at = now()
    WHERE id = $1
"""


async def give(engine: BatchEngine, kind: Kind, *, items: int = 1) -> UUID:
    """Store a batch or task whose items have failed very often."""
    creation = CreateBatch(
        batch_id=new_id(),
        owner_id="ann",
        kind=kind,
        operation="echo",
        accepted_at=datetime.now(UTC),
        items=[Item(payload=number) for number in range(items)],
    )
    await engine.handle(creation)
    await engine.execute(_ENDED, creation.batch_id)
    await engine.execute(_RETRIED, creation.batch_id, items)
    return creation.batch_id


async def test_the_newest_failed_attempts_are_shown_within_the_size_of_a_message(engine: BatchEngine) -> None:
    answers = BatchAnswers(engine.postgres, engine.intake.limits, upload_expires_s=60)
    for _ in range(12):
        task = await give(engine, "task")
    one = await answers.get(GetBatch(batch_id=task, owner_id="ann", kind="task"), Deadline.after(20))
    attempts = orjson.loads(one)["failed_attempts"]
    assert len(attempts) == MOST_ATTEMPTS
    assert attempts[-1]["detail"].startswith("1500 ")
    seen, cursor = 0, None
    while cursor is not None or not seen:
        page = await answers.list(ListBatches(owner_id="ann", kind="task", cursor=cursor), Deadline.after(20))
        assert len(page) < _MOST_BYTES
        found = orjson.loads(page)
        seen, cursor = seen + len(found["data"]), found["next_cursor"]
    assert seen == 12
    batch = await give(engine, "batch", items=2)
    items = await answers.items(ListItems(batch_id=batch, owner_id="ann"), Deadline.after(20))
    assert len(items) < _MOST_BYTES
    assert [len(item["failed_attempts"]) for item in orjson.loads(items)["data"]] == [MOST_ATTEMPTS] * 2


async def test_the_most_frequent_error_codes_of_a_batch_are_shown(engine: BatchEngine) -> None:
    answers = BatchAnswers(engine.postgres, engine.intake.limits, upload_expires_s=60)
    batch = await give(engine, "batch")
    codes = "INSERT INTO failures SELECT $1, 'code' || n, n FROM generate_series(1, 300) AS n"
    await engine.execute(codes, batch)
    one = await answers.get(GetBatch(batch_id=batch, owner_id="ann"), Deadline.after(20))
    errors = orjson.loads(one)["errors"]
    assert len(errors) == MOST_CODES
    assert errors["code300"] == 300
