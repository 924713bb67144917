"""The task that follows the end of a batch."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from batch_processor.batches.following import follow_up
from batch_processor.batches.life_cycle import StoredBatch
from chassis.broker.envelope import new_id
from contracts.batches import FollowUp

WANTED = FollowUp(operation="echo")


def test_a_task_that_follows_has_its_place_by_age_among_the_others() -> None:
    ended_at = datetime.now(UTC)
    batch = StoredBatch(new_id(), "ann", status="completed", accepted_at=ended_at, finished_at=ended_at)
    (id_, again, of_next_end, of_another, later) = (
        UUID(follow_up(one, WANTED).message_id)
        for one in (
            batch,
            batch,
            replace(batch, revision=1),
            replace(batch, id=new_id()),
            replace(batch, finished_at=ended_at + timedelta(seconds=1)),
        )
    )
    assert (id_.version, id_.variant) == (7, RFC_4122)
    # Lists are in the order of ids.
    assert batch.id.hex[:10] <= id_.hex[:10] < later.hex[:10]
    assert id_ == again
    assert len({id_, of_next_end, of_another}) == 3
