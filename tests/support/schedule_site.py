"""A gateway over the real schedules of batch-processor, and the runs that it accepts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson

from batch_processor import consumers as batch_consumers
from batch_processor.backups.answers import BackupAnswers
from batch_processor.limits.rules import LimitBook
from batch_processor.pauses.answers import PauseAnswers
from batch_processor.reading.answers import BatchAnswers
from chassis.broker.envelope import Delivery, new_id
from contracts.schedules import ScheduleFired
from gateway.batches.operations import OperationCatalogue
from gateway.schedules.runs import ScheduledRuns
from support import schedule_world
from support.gateway_stack import House, RunningGateway
from support.schedule_world import ScheduleWorld
from support.waiting_messages import waiting_messages

TEMPLATE = '{"operation": "echo", "payload" : {"price": 1.10}, "metadata":{"report":"daily"}}'
HOURLY = {"name": "hourly", "cron": "0 * * * *", "template": {"operation": "echo", "payload": 1}}


@dataclass(frozen=True)
class ScheduleSite:
    """A gateway, and the schedules that batch-processor has stored."""

    listener: RunningGateway
    world: ScheduleWorld

    async def create(self, body: Mapping[str, Any] = HOURLY, **headers: str) -> httpx.Response:
        answer = await self.listener.api.post("/v1/schedules", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer

    async def audited(self, target: str) -> list[str]:
        rows = await self.listener.database.fetch(
            "SELECT action FROM audit_entries WHERE target = $1 ORDER BY id", f"schedule:{target}"
        )
        return [row["action"] for row in rows]


@asynccontextmanager
async def on(house: House) -> AsyncIterator[ScheduleSite]:
    """Yield a site on the servers of a house."""
    async with schedule_world.opened(await house.database("batch_processor")) as world:
        pauses = PauseAnswers(world.postgres, changed=lambda: None)
        batches = BatchAnswers(world.postgres, LimitBook({}, {}), upload_expires_s=60)
        backups = BackupAnswers(world.postgres)
        answers = batch_consumers.answers(batches, world.answers, pauses, backups)
        await house.double("batch-processor", answers)
        listener = await house.open()
        await listener.database.execute(
            "INSERT INTO operations (name, description, item_schema, required_scopes)"
            " VALUES ('echo', '', '{}', '{}'), ('guarded', '', '{}', '{emails:send}'),"
            " ('numbers', '', '{\"type\": \"integer\"}', '{}'), ('administrative', '', '{}', '{admin}')"
        )
        yield ScheduleSite(listener, world)


def fired(owner_id: int | str, made_by: str, **changes: Any) -> ScheduleFired:
    """Return the event of a run that is due now."""
    fields = {
        "run_id": new_id(),
        "schedule_id": uuid4(),
        "owner_id": str(owner_id),
        "made_by": made_by,
        "due_at": datetime(2026, 11, 27, 12, tzinfo=UTC),
        "fired_at": datetime.now(UTC),
        "kind": "task",
        "template": TEMPLATE,
    }
    return ScheduleFired.model_validate(fields | changes)


class _RolledBack(Exception):
    """Ends a transaction whose effect was looked at."""


@asynccontextmanager
async def accepted(site: ScheduleSite, *runs: ScheduleFired) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the commands that the gateway sends for runs, in a transaction that is taken back."""
    resources = site.listener.gateway.resources
    postgres = resources.runtime.postgres
    scheduled = ScheduledRuns(OperationCatalogue(postgres.connection))
    deliveries = [Delivery(run, run.run_id, 1, run.owner_id, {}) for run in runs]
    try:
        async with postgres.transaction() as connection:
            # News of changed users may still be there.
            before = await connection.fetchval("SELECT coalesce(max(id), 0) FROM outbox")
            await scheduled.accept(connection, deliveries)
            messages = await waiting_messages(connection, after=before)
            acceptances = await connection.fetch("SELECT id, kind FROM acceptances")
            kinds = {row["id"]: row["kind"] for row in acceptances}
            yield [
                {
                    **orjson.loads(message.body),
                    "_type": message.message_type,
                    "_kind": kinds.get(UUID(message.message_id)),
                    "_body": message.body.decode(),
                }
                for message in messages
            ]
            raise _RolledBack
    except _RolledBack:
        pass
