"""A batch that a pass of the coordinator cannot handle, for whatever reason, holds up no other batch."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import pytest

from batch_processor.background import backoff
from batch_processor.intake.validation import Validation
from chassis.broker.envelope import new_id
from contracts.batches import CancelBatch, CreateBatch, Item
from support.batch_engine import BatchEngine

PASSES = ("cancel", "retry", "expire", "validation oldest", "validation smallest")


async def prepared(engine: BatchEngine, what: str) -> UUID:
    """Return a batch of three items that waits for a pass."""
    id_ = new_id()
    is_upload = what == "expire" or what.startswith("validation")
    items = None if is_upload else [Item(payload=n) for n in range(3)]
    await engine.handle(
        CreateBatch(
            batch_id=id_, owner_id="ann", operation="echo", items=items, accepted_at=datetime.now(UTC)
        )
    )
    if what == "cancel":
        await engine.handle(CancelBatch(batch_id=id_, owner_id="ann"))
    elif what == "retry":
        await engine.execute("UPDATE batches SET retry_codes = '{}' WHERE id = $1", id_)
    elif what == "expire":
        long_ago = "created_at = now() - interval '9 d', appended_at = now() - interval '9 d'"
        await engine.execute(f"UPDATE batches SET {long_ago} WHERE id = $1", id_)
    else:
        change = "UPDATE batches SET status = 'validating', total = 3, received = 3 WHERE id = $1"
        await engine.execute(change, id_)
    return id_


async def is_handled(engine: BatchEngine, what: str, batch_id: UUID) -> bool:
    batch = await engine.get(batch_id)
    assert batch is not None
    return {
        "cancel": batch.status == "cancelled",
        "retry": batch.retry_codes is None,
        "expire": batch.status == "expired",
        "validation": batch.status not in ("validating", "open"),
    }[what.split()[0]]


@pytest.mark.parametrize("what", PASSES)
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "behind"])
async def test_a_pass_skips_a_batch_that_it_fails_at(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch, what: str, is_first: bool
) -> None:
    validation = Validation(engine.postgres, engine.intake.begin, operations=["echo"], begun=lambda: None)

    async def check_all() -> None:
        while await validation.check("oldest" if what.endswith("oldest") else "smallest"):
            pass

    coordinator = engine.coordinator
    passes = {"cancel": coordinator.cancel, "retry": coordinator.redrive, "expire": coordinator.expire}
    run = passes.get(what, check_all)
    ids = [await prepared(engine, what) for _ in range(2)]
    broken, sound = ids if is_first else reversed(ids)
    await engine.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'a fault that nobody expected'; END $$"
    )
    await engine.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON batches FOR EACH ROW"
        f" WHEN (new.id = '{broken}') EXECUTE FUNCTION refuse()"
    )
    await run()
    assert [await is_handled(engine, what, id_) for id_ in (broken, sound)] == [False, True]
    await engine.execute("DROP TRIGGER refuse ON batches; DROP FUNCTION refuse")
    # Not at once: a fault costs nobody every look.
    await run()
    assert not await is_handled(engine, what, broken)
    over = time.monotonic() + 6
    monkeypatch.setattr(backoff, "time", SimpleNamespace(monotonic=lambda: over))
    await run()
    assert await is_handled(engine, what, broken)
