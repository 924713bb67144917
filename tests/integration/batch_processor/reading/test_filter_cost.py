"""Lists and counts of an owner with many batches read a bounded part of them, whatever the filter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from batch_processor.reading import list_repository
from chassis.postgres import Connection
from contracts.batches import BatchFilter
from support.batch_engine import BatchEngine
from support.explained import Explained

ROWS = 20_000
EXAMINED = 100
LATER = datetime.now(UTC) + timedelta(days=1)
# Each filter, and the buffers that one statement may read: four for the failures of each batch examined.
FILTERS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 100),
    "operation": ({"operations": ["rare"]}, 100),
    "created_after": ({"created_after": LATER}, 100),
    "created_before": ({"created_before": LATER - timedelta(days=900)}, 100),
    "with failures": ({"with_failures": True}, 100),
    "failure code": ({"failure_codes": ["timeout"]}, 100 + 4 * EXAMINED),
    "failure code of one status": (
        {"failure_codes": ["timeout"], "statuses": ["completed"]},
        100 + 4 * EXAMINED,
    ),
}


@pytest.fixture
async def crowded(engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """Store batches that nobody's filter fits: most are completed, one of ten has failed."""
    monkeypatch.setattr(list_repository, "MOST_EXAMINED", EXAMINED)
    async with engine.postgres.connection() as connection:
        await connection.execute(
            "INSERT INTO batches (id, owner_id, operation, status, accepted_at)"
            " SELECT (lpad(to_hex(n), 8, '0') || repeat('0', 24))::uuid, 'ann', 'echo',"
            " CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'completed' END, now()"
            " FROM generate_series(1, $1::int) AS n",
            ROWS,
        )
        await connection.execute("INSERT INTO failures SELECT id, 'conflict', 1 FROM batches")
        for table in ("batches", "failures"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        yield connection
        await connection.execute("RESET ALL")


@pytest.mark.parametrize("plans", ["force_custom_plan", "force_generic_plan"])
async def test_lists_and_counts_read_a_bounded_part_whatever_the_filter(
    crowded: Connection, plans: str
) -> None:
    await crowded.execute(f"SET plan_cache_mode = {plans}")
    explained: Any = Explained(crowded, package="batch_processor")
    for before in (None, UUID(int=(ROWS - 1000) << 96)):
        for name, (fields, most) in FILTERS.items():
            explained.read.clear()
            wanted = BatchFilter.model_validate(fields)
            page, following = await list_repository.list_batches(
                explained, "ann", kind="batch", wanted=wanted, before=before, limit=50
            )
            assert bool(page) == (name == "nothing"), name
            assert following is not None, name
            counted = await list_repository.count_batches(
                explained, "ann", wanted=wanted, before=before, until=following
            )
            assert sum(counted.counts.values()) == len(page), name
            assert set(explained.read) >= {"list_batches", "count_batches"}
            assert max(explained.read.values()) < most, (name, before, explained.read)


async def test_counts_are_exact_where_no_status_has_more_than_are_examined(crowded: Connection) -> None:
    whole = await list_repository.count_batches(crowded, "ann")
    assert (whole.counts, whole.exact) == ({"completed": EXAMINED, "failed": EXAMINED}, False)
    last = UUID(int=(ROWS - 49) << 96)
    part = await list_repository.count_batches(crowded, "ann", until=last)
    assert (part.counts, part.exact) == ({"completed": 45, "failed": 5}, True)


async def test_pages_of_a_filter_that_matches_little_show_each_batch_once(
    crowded: Connection,
) -> None:
    rare = [UUID(int=number << 96) for number in (ROWS, ROWS - 99, ROWS - 100, ROWS - 151, ROWS - 350)]
    await crowded.execute("UPDATE batches SET operation = 'rare' WHERE id = ANY($1)", rare)
    for limit in (1, 2, 50):
        shown: list[UUID] = []
        before, pages = None, 0
        while pages == 0 or (before is not None and len(shown) < len(rare)):
            page, before = await list_repository.list_batches(
                crowded,
                "ann",
                kind="batch",
                wanted=BatchFilter(operations=["rare"]),
                before=before,
                limit=limit,
            )
            shown += [batch.id for batch in page]
            pages += 1
            assert pages < 10
        assert shown == rare
        assert pages >= 4
