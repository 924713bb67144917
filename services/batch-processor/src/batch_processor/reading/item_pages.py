"""The items of a batch as their owner sees them: payloads, states and failed attempts."""

from __future__ import annotations

import orjson

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.reading import repository
from batch_processor.reading.repository import PAGE_BYTES
from chassis.postgres import Connection, Row


async def list_items(connection: Connection, batch: StoredBatch, *, after: int, limit: int) -> bytes:
    """Return up to `limit` items after the position `after` as the JSON of `contracts.batch_items.Items`.

    The page ends at its size in bytes, to which the errors of attempts count, but not before its first item.
    """
    rows = await repository.list_items(connection, batch.id, after=after, limit=limit)
    without_result = "pending"
    if batch.is_finished:
        # It never ran: it was cancelled, refused or expired as a whole.
        without_result = "cancelled" if batch.status == "cancelled" else "skipped"
    last = (batch.received if batch.total is None else batch.total) - 1
    data: list[str] = []
    size, shown = 0, last
    for row in rows:
        if size >= PAGE_BYTES:
            break
        data.append(_item_json(row, without_result))
        size, shown = size + len(data[-1]), row["position"]
    cursor = f'"{shown}"' if shown < last else "null"
    return f'{{"data":[{",".join(data)}],"next_cursor":{cursor}}}'.encode()


def _item_json(row: Row, without_result: str) -> str:
    """Return an item as JSON; the payload is passed on as it was stored."""
    about = {
        "position": row["position"],
        "custom_id": row["custom_id"],
        "status": row["status"] or ("running" if row["is_running"] else without_result),
        "error": row["error_code"] and {"code": row["error_code"], "detail": row["error_detail"] or ""},
        "failed_attempts": orjson.loads(row["failed_attempts"]),
    }
    return f'{orjson.dumps(about).decode()[:-1]},"payload":{row["payload"]}}}'
