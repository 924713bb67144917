"""The messages that a gateway reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from chassis.broker.envelope import live, new_id
from contracts.batches import Batch, BatchProgressed, Counts, Kind
from gateway.consumers import BEGIN_OF_PROGRESS


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_id_and_the_kind_are_found_at_the_beginning_of_the_progress_of_a_batch(kind: Kind) -> None:
    counts = Counts(total=1, pending=0, running=0, succeeded=1, failed=0, cancelled=0, skipped=0)
    batch = Batch(
        id=new_id(),
        kind=kind,
        operation="echo",
        status="completed",
        counts=counts,
        accepted_at=datetime.now(UTC),
    )
    pushed = live(BatchProgressed(batch=batch, owner_id="1", offset=3), "batch.x")
    found = BEGIN_OF_PROGRESS.match(pushed.body)
    assert found is not None
    assert (found[1].decode(), found[2].decode()) == (str(batch.id), kind)
