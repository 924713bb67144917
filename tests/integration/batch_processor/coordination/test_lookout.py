"""The one query each second or half second that wakes every background loop for which there is work."""

from __future__ import annotations

import pytest

from batch_processor.coordination.lookout import Lookout
from chassis import beats
from support.batch_engine import BatchEngine
from support.schedule_world import ScheduleWorld

_KINDS = ("orders", "expired", "ready", "due", "limited", "uploads", "copies", "schedules")
_BATCH = """
    INSERT INTO batches (id, owner_id, operation, status, created_at, source)
    VALUES (gen_random_uuid(), '7', 'echo', $1, now() - make_interval(hours => $2), $3)
    RETURNING id
"""
_CHUNK = """
    INSERT INTO chunks (batch_id, number, state, first_position, last_position, remaining, due_at)
    SELECT id, 0, 'waiting', 0, 0, 1, now() FROM batches LIMIT 1
"""


async def test_each_kind_of_work_is_found_and_nothing_else(engine: BatchEngine) -> None:
    found: list[str] = []
    ready_from = 0
    lookout = Lookout(
        engine.postgres,
        upload_expires_s=3600,
        ready_from=lambda: ready_from,
        found={kind: lambda kind=kind: found.append(kind) for kind in _KINDS},  # type: ignore[misc]
    )

    async def look() -> list[str]:
        found.clear()
        await lookout.look()
        return list(found)

    assert await look() == []
    await engine.execute(_BATCH, "open", 0, None)
    await engine.execute(_BATCH, "completed", 2, None)
    assert await look() == [], "an upload that is still open, and a batch that is done"
    await engine.execute(_BATCH, "open", 2, None)
    assert await look() == ["expired"]
    await engine.execute("DELETE FROM batches")
    await engine.execute(_BATCH, "open", 0, "{}")
    assert await look() == ["copies"]
    await engine.execute(_CHUNK)
    assert await look() == ["limited", "copies"]
    await engine.execute("UPDATE chunks SET state = 'held'")
    assert await look() == ["orders", "copies"]
    await engine.execute("UPDATE chunks SET state = 'ready'")
    assert await look() == ["ready", "copies"]
    ready_from = 1 + (await engine.fetch("SELECT max(stamp) AS last FROM chunks"))[0]["last"]
    assert await look() == ["copies"], "a search that begins after all stamps"
    await engine.execute("UPDATE chunks SET state = 'delayed'")
    assert await look() == ["due", "copies"]
    await engine.execute("UPDATE chunks SET due_at = now() + interval '1 minute'")
    assert await look() == ["copies"], "a chunk that is due later"
    await engine.execute("DELETE FROM chunks")
    await engine.execute("UPDATE batches SET status = 'validating'")
    assert await look() == ["uploads"]
    await engine.execute("DELETE FROM batches")
    world = ScheduleWorld(engine.postgres)
    schedule = await world.create()
    assert await look() == []
    await world.make_due(schedule)
    assert await look() == ["schedules"]
    await world.firing.fire()
    assert await look() == ["schedules"], "its run has not ended"


async def test_while_there_is_no_work_every_other_look_is_left_out(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beats, "due_in_s", lambda every_s: every_s)
    lookout = Lookout(
        engine.postgres,
        upload_expires_s=3600,
        ready_from=lambda: 0,
        found={kind: lambda: None for kind in _KINDS},
    )
    assert lookout.next_look_in_s() == 0.5
    await lookout.look()
    assert lookout.next_look_in_s() == 1
    await engine.execute(_BATCH, "open", 2, None)
    await lookout.look()
    assert lookout.next_look_in_s() == 0.5
