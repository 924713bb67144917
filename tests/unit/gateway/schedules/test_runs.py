"""Runs that have fired, as the gateway accepts them: very many are due at the same time of the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from chassis.broker.envelope import Delivery, new_id
from contracts.schedules import ScheduleFired
from gateway.batches.operations import OperationCatalogue
from gateway.schedules.runs import ScheduledRuns
from support.doubles.statements import AnsweredConnection
from support.turns_of_the_loop import turns_of_the_loop


class RunDatabase:
    """A database with the key that made the schedules, and one operation."""

    def __init__(self) -> None:
        self.accepted: list[UUID] = []

    async def find_usable_keys(self, key_ids: Sequence[str]) -> list[dict[str, Any]]:
        user = {"user_id": 7, "user_name": "Ann", "role": "member", "scopes": ["batches:write"]}
        digests = {"digest": b"", "previous_digest": None, "previous_until": None}
        return [{"id": key_id, "expires_at": None, **user, **digests} for key_id in key_ids]

    async def list_operations(self) -> list[dict[str, Any]]:
        return [{"name": "echo", "description": "", "item_schema": "{}", "required_scopes": []}]

    async def accept(self, ids: list[UUID], *_: Any) -> list[dict[str, Any]]:
        self.accepted += ids
        return [{"id": id_} for id_ in ids]


async def test_the_loop_is_not_held_up_by_all_the_schedules_that_are_due_together() -> None:
    async def longest_turn(runs: int) -> int:
        # With spaces: its payloads are found by parsing.
        template = f'{{"operation": "echo", "items": {list(range(500))}}}'
        fired = [
            ScheduleFired(
                run_id=new_id(), schedule_id=uuid4(), owner_id="7", made_by="key", kind="batch",
                due_at=datetime(2026, 11, 30, 12, tzinfo=UTC), fired_at=datetime.now(UTC), template=template,
            )
            for _ in range(runs)
        ]  # fmt: skip
        database = RunDatabase()
        connection: Any = AnsweredConnection(database)
        catalogue = OperationCatalogue(lambda: nullcontext(connection))
        given = [Delivery(run, run.run_id, 1, "7", {}) for run in fired]
        async with turns_of_the_loop() as most_calls:
            await ScheduledRuns(catalogue).accept(connection, given)
            await asyncio.sleep(0)
        assert database.accepted == [run.run_id for run in fired]
        return most_calls()

    # In the loop, reading one of these templates and writing its command takes five times as many calls.
    assert await longest_turn(20) < 2_000
