"""Deliveries of webhooks in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from gateway.webhooks.inputs import DeliveriesQuery

_SQL = queries.of("gateway")

# Of each delivery, over all rounds.
MOST_HISTORY = 20


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery that begins to wait, with the body of its requests."""

    id: UUID
    webhook_id: UUID
    owner_id: str
    type: str
    payload: str


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A webhook with a delivery that is due, or will be in `due_in_s` seconds."""

    id: UUID
    owner_id: str
    is_failing: bool
    due_in_s: float


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A delivery that this process attempts now; `attempts` counts this attempt, too."""

    id: UUID
    webhook_id: UUID
    owner_id: str
    attempts: int
    url: str
    payload: str = field(repr=False)
    secret: bytes = field(repr=False)
    previous_secret: bytes | None = field(repr=False)
    sealed_with: str


async def insert(connection: Connection, deliveries: Sequence[NewDelivery]) -> None:
    """Store deliveries, due now."""
    rows = [(one.id, one.webhook_id, one.owner_id, one.type, one.payload) for one in deliveries]
    await connection.execute(_SQL["insert_deliveries"], *map(list, zip(*rows, strict=True)))


async def count_pending(
    connection: Connection, webhook_ids: Collection[UUID], *, most: int
) -> Mapping[UUID, int]:
    """Return how many deliveries wait for each of these webhooks, counted up to `most`."""
    rows = await connection.fetch(_SQL["count_pending_deliveries"], list(webhook_ids), most)
    return {row["id"]: row["pending"] for row in rows}


async def due(connection: Connection, *, within_s: float, limit: int) -> list[DueWebhook]:
    """Return active webhooks with deliveries that are due in this time, the first due first."""
    rows = await connection.fetch(_SQL["find_due_webhooks"], within_s, limit)
    return [DueWebhook(**row) for row in rows]


async def claim(
    connection: Connection, wanted: Mapping[UUID, int], *, lease_s: float
) -> list[ClaimedDelivery]:
    """Claim up to so many due deliveries of each webhook; nobody else attempts them for `lease_s` seconds."""
    rows = await connection.fetch(
        _SQL["claim_deliveries"], list(wanted.keys()), list(wanted.values()), lease_s
    )
    return [ClaimedDelivery(**row) for row in rows]


async def record(
    connection: Connection, claimed: ClaimedDelivery, status: str, *, retry_in_s: float | None, attempt: str
) -> None:
    """Store the outcome of an attempt, unless its claim is over: withdrawn, or taken by others."""
    await connection.execute(
        _SQL["record_attempt"], claimed.id, claimed.attempts, status, retry_in_s, attempt, MOST_HISTORY
    )


async def note_success(connection: Connection, webhook_id: UUID, url: str) -> None:
    """Note that an attempt at this URL succeeded, some seconds late if many do."""
    await connection.execute(_SQL["note_success"], webhook_id, url)


async def note_failure(connection: Connection, webhook_id: UUID, url: str, reason: str) -> None:
    """Count a failed attempt at this URL of a webhook, with its reason."""
    await connection.execute(_SQL["note_failure"], webhook_id, url, reason)


async def page(connection: Connection, webhook_id: UUID, query: DeliveriesQuery) -> list[Row]:
    """Return a page of deliveries, newest first, plus one more if there is one."""
    return await connection.fetch(
        _SQL["list_deliveries"],
        webhook_id,
        query.cursor,
        query.status,
        query.type,
        query.created_after,
        query.created_before,
        query.limit + 1,
    )


async def find(connection: Connection, delivery_id: UUID, webhook_id: UUID) -> Row | None:
    """Return a delivery of a webhook."""
    return await connection.fetchrow(_SQL["find_delivery"], delivery_id, webhook_id)


async def replay(connection: Connection, delivery_id: UUID) -> Row | None:
    """Let a delivery that has ended begin again; return None if it has not ended."""
    return await connection.fetchrow(_SQL["replay_delivery"], delivery_id)


@dataclass(frozen=True, slots=True)
class ReplayChoice:
    """The deliveries of a webhook that are to begin again: of these types, ended with one of these states."""

    webhook_id: UUID
    statuses: Sequence[str]
    types: Sequence[str]
    created_after: datetime | None
    created_before: datetime | None


async def count(connection: Connection, choice: ReplayChoice, *, most: int) -> int:
    """Return how many deliveries are chosen, counted up to `most`."""
    return int(await connection.fetchval(_SQL["count_deliveries"], *astuple(choice), most))


async def replay_chosen(connection: Connection, choice: ReplayChoice, *, most: int) -> int:
    """Let up to `most` of the chosen deliveries begin again; return how many."""
    return affected_rows(await connection.execute(_SQL["replay_deliveries"], *astuple(choice), most))


async def remove_finished(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` deliveries that ended more than `keep_days` ago; return how many."""
    tag = await connection.execute(_SQL["remove_finished_deliveries"], keep_days, most)
    return affected_rows(tag)
