"""A filter means the same to a list, to its pages and to a count: two statements, one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_processor.reading import list_repository
from chassis.postgres import Connection
from contracts.batches import BatchFilter, BatchStatus
from support.batch_engine import BatchEngine

BASE = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES = get_args(BatchStatus)
CODES = ("conflict", "timeout")


@dataclass(frozen=True)
class FilteredBatch:
    """A batch as the model knows it; of the failures `codes` some have no item any more."""

    id: UUID
    owner: str
    kind: str
    operation: str
    status: str
    accepted_at: datetime
    failed: int
    codes: dict[str, int]

    def fits(self, wanted: BatchFilter) -> bool:
        """Return whether a filter chooses the batch."""
        return (
            (not wanted.statuses or self.status in wanted.statuses)
            and (not wanted.operations or self.operation in wanted.operations)
            and (wanted.created_after is None or self.accepted_at > wanted.created_after)
            and (wanted.created_before is None or self.accepted_at < wanted.created_before)
            and (not wanted.with_failures or self.failed > 0)
            and (
                not wanted.failure_codes
                or any(items for code, items in self.codes.items() if code in wanted.failure_codes)
            )
        )


ROWS = [
    FilteredBatch(
        UUID(int=(n + 1) << 96),
        owner="ann" if n % 5 else "bob",
        kind="task" if n % 4 == 3 else "batch",
        operation="ab"[n % 7 % 2],
        status=STATUSES[n * 7 % len(STATUSES)],
        accepted_at=BASE + timedelta(minutes=n),
        failed=n % 3,
        codes={code: items for code, items in zip(CODES, (n % 2, n // 2 % 2), strict=True) if n % 6},
    )
    for n in range(120)
]
MOMENTS = st.none() | st.integers(-1, 121).map(lambda n: BASE + timedelta(minutes=n))
FILTERS = st.fixed_dictionaries(
    {
        "statuses": st.just([]) | st.lists(st.sampled_from(STATUSES), max_size=4),
        "operations": st.just([]) | st.lists(st.sampled_from("abc"), max_size=2),
        "with_failures": st.booleans(),
        "failure_codes": st.just([]) | st.lists(st.sampled_from((*CODES, "none")), max_size=2),
        "created_after": MOMENTS,
        "created_before": MOMENTS,
    }
)


@pytest.fixture
async def varied(engine: BatchEngine) -> AsyncIterator[Connection]:
    """Store the rows of the model."""
    async with engine.postgres.connection() as connection:
        await connection.executemany(
            "INSERT INTO batches (id, owner_id, kind, operation, status, accepted_at, failed)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7)",
            [(r.id, r.owner, r.kind, r.operation, r.status, r.accepted_at, r.failed) for r in ROWS],
        )
        failures = [(row.id, code, items) for row in ROWS for code, items in row.codes.items()]
        await connection.executemany(
            "INSERT INTO failures (batch_id, code, items) VALUES ($1, $2, $3)", failures
        )
        yield connection


@settings(
    max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(fields=FILTERS, kind=st.sampled_from(("batch", "task")), limit=st.integers(1, 30))
async def test_a_list_its_pages_and_a_count_choose_the_same_batches(
    varied: Connection, fields: dict[str, Any], kind: Any, limit: int
) -> None:
    wanted = BatchFilter.model_validate(fields)
    expected = [row for row in reversed(ROWS) if (row.owner, row.kind) == ("ann", kind) and row.fits(wanted)]
    listed: list[UUID] = []
    before: UUID | None = None
    while True:
        page, following = await list_repository.list_batches(
            varied, "ann", kind=kind, wanted=wanted, before=before, limit=limit
        )
        listed += [batch.id for batch in page]
        part = await list_repository.count_batches(
            varied, "ann", kind=kind, wanted=wanted, before=before, until=following
        )
        assert (part.counts, part.exact) == (Counter(str(batch.status) for batch in page), True)
        if following is None:
            break
        before = following
    assert listed == [row.id for row in expected]
    whole = await list_repository.count_batches(varied, "ann", kind=kind, wanted=wanted)
    assert (whole.counts, whole.exact) == (Counter(row.status for row in expected), True)
