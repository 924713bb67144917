"""Messages of one open upload in every order, handled by the intake on a real database, without a broker."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from chassis.broker.envelope import new_id
from contracts.batches import AppendItems, CancelBatch, CreateBatch, Item, SealBatch
from contracts.message import Command
from support.batch_engine import BatchEngine

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_cancelled_upload_ends_with_all_its_items_in_whatever_order_its_messages_come(
    engine: BatchEngine,
) -> None:
    for is_sealed in (False, True):
        for order in itertools.permutations(range(4 if is_sealed else 3)):
            id_ = new_id()
            messages: list[Command] = [
                CreateBatch(batch_id=id_, owner_id="ann", operation="echo", accepted_at=NOW),
                AppendItems(
                    batch_id=id_, owner_id="ann", offset=0, items=[Item(payload=n) for n in range(3)]
                ),
                CancelBatch(batch_id=id_, owner_id="ann"),
                SealBatch(batch_id=id_, owner_id="ann", operation="echo", accepted_at=NOW, total=3),
            ]
            for number in order:
                await engine.handle(messages[number])
            # What had been complete before the cancel has chunks, which the coordinator cancels.
            await engine.coordinator.cancel()
            batch = await engine.get(id_)
            assert batch is not None
            [(stored,)] = await engine.fetch("SELECT count(*) FROM items WHERE batch_id = $1", id_)
            counts = (batch.total, batch.received, batch.cancelled, stored)
            assert (batch.status, counts) == ("cancelled", (3, 3, 3, 3)), order
            [(reported,)] = await engine.fetch(
                "SELECT count(*) FROM outbox WHERE position(convert_to($1, 'utf8') IN body) > 0", str(id_)
            )
            assert reported == 1, order
