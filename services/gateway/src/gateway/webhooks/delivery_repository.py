"""Deliveries of webhooks in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import datetime
from typing import get_args
from uuid import UUID

from chassis import queries
from chassis.paging import page_of
from chassis.postgres import Connection, Row, affected_rows
from gateway.identity.authority import Maker
from gateway.identity.key_repository import known_scopes
from gateway.webhooks.inputs import DeliveriesQuery, EndedStatus

_SQL = queries.of("gateway")

# Attempts that are kept of a delivery, over all replays.
MOST_HISTORY = 20
# Deliveries that one page examines; a filter may match none of very many.
MOST_EXAMINED = 2000
_LAST_ID = 2**128 - 1


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
    type: str
    attempts: int
    made_by: str
    maker_scopes: Sequence[str]
    url: str
    payload: str = field(repr=False)
    secret: bytes = field(repr=False)
    previous_secret: bytes | None = field(repr=False)
    sealed_with: str

    @property
    def maker(self) -> Maker:
        """The user and the credential with which the webhook was made or last changed."""
        return Maker(self.owner_id, self.made_by, known_scopes(self.maker_scopes))


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
    """Return active webhooks with deliveries that are due in this time, in turns of their owners."""
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
    """Store the outcome of an attempt, unless it was withdrawn or another gateway has claimed it."""
    await connection.execute(
        _SQL["record_attempt"], claimed.id, claimed.attempts, status, retry_in_s, attempt, MOST_HISTORY
    )


async def give_back(connection: Connection, claimed: Sequence[ClaimedDelivery]) -> None:
    """End claims without an outcome. Their attempts do not count; the deliveries are due now."""
    ids, attempts = [one.id for one in claimed], [one.attempts for one in claimed]
    await connection.execute(_SQL["give_back_deliveries"], ids, attempts)


async def withdraw_claimed(
    connection: Connection, claimed: Sequence[ClaimedDelivery], *, attempt: str
) -> None:
    """End deliveries without an attempt, as `attempt` explains; those of disabled users wait, as before."""
    ids = [one.id for one in claimed]
    await connection.execute(_SQL["withdraw_claimed_deliveries"], ids, attempt, MOST_HISTORY)
    await give_back(connection, claimed)


async def note_success(connection: Connection, webhook_id: UUID, url: str) -> None:
    """Note that an attempt at this URL succeeded; if many do, some seconds late."""
    await connection.execute(_SQL["note_success"], webhook_id, url)


async def note_failure(connection: Connection, webhook_id: UUID, url: str, reason: str) -> None:
    """Count a failed attempt at this URL of a webhook, with its reason."""
    await connection.execute(_SQL["note_failure"], webhook_id, url, reason)


async def page(
    connection: Connection, webhook_id: UUID, query: DeliveriesQuery
) -> tuple[list[Row], UUID | None]:
    """Return a page of deliveries, newest first, and the id after which the next page begins.

    With a filter it examines `MOST_EXAMINED` deliveries at most: it may have fewer than `limit`, or none.
    """
    narrowing = (query.type, query.created_after, query.created_before)
    most = query.limit + 1 if narrowing == (None, None, None) else MOST_EXAMINED
    statuses = sorted(set(query.status or ("pending", *get_args(EndedStatus))))
    before = query.cursor or UUID(int=_LAST_ID)
    row = await connection.fetchrow(
        _SQL["find_matching_deliveries"], webhook_id, statuses, before, most, *narrowing, query.limit + 1
    )
    assert row is not None, "counts are there, whatever they count"
    ids, following = page_of(row["ids"], query.limit, lambda delivery_id: delivery_id)
    end = row["last"] if row["examined"] == most else None
    return await connection.fetch(_SQL["list_deliveries"], ids), following or end


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


async def find_to_replay(
    connection: Connection, choice: ReplayChoice, *, after: UUID | None, most: int
) -> tuple[list[UUID], UUID | None]:
    """Return those of the `most` oldest deliveries after an id that match, and the id to continue from."""
    webhook_id, statuses, *narrowing = astuple(choice)
    row = await connection.fetchrow(
        _SQL["find_deliveries_to_replay"],
        webhook_id,
        sorted(set(statuses)),
        after or UUID(int=0),
        most,
        *narrowing,
    )
    assert row is not None, "counts are there, whatever they count"
    return row["ids"], row["last"] if row["examined"] == most else None


async def replay_each(connection: Connection, delivery_ids: Sequence[UUID]) -> int:
    """Let those of these deliveries begin again that have ended; return how many."""
    return affected_rows(await connection.execute(_SQL["replay_deliveries"], delivery_ids))


async def withdraw_of_disabled_users(connection: Connection, *, wait_days: int, most: int) -> int:
    """End up to `most` deliveries that have been due for `wait_days` and whose users are disabled."""
    tag = await connection.execute(_SQL["withdraw_deliveries_of_disabled_users"], wait_days, most)
    return affected_rows(tag)


async def remove_finished(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` deliveries that ended more than `keep_days` ago; return how many."""
    tag = await connection.execute(_SQL["remove_finished_deliveries"], keep_days, most)
    return affected_rows(tag)
