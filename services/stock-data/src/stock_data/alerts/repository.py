"""Alerts and their firings in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from chassis import outbox, queries
from chassis.broker import envelope
from chassis.postgres import Connection, affected_rows
from contracts.alerts import (
    Alert,
    AlertFired,
    Condition,
    CreateAlert,
    EmailTarget,
    Firing,
    ListAlerts,
    status_of,
)
from stock_data.alerts.crossings import Crossing
from stock_data.alerts.watched import WatchedAlert

_SQL = queries.of("stock_data")


class Horizon(NamedTuple):
    """A snapshot of the alerts: transactions that it does not contain have at least the number `xid`."""

    xid: int
    at: datetime


async def read_horizon(connection: Connection) -> Horizon:
    """Return the snapshot after which changes must still be read by one who reads all alerts now."""
    row = await connection.fetchrow(_SQL["alert_horizon"])
    assert row is not None, "the query always returns one row"
    return Horizon(row["xid"], row["at"])


async def find_watched(connection: Connection, *, after: UUID, limit: int) -> list[WatchedAlert]:
    """Return up to `limit` alerts that can fire, by id, from the first behind `after`."""
    rows = await connection.fetch(_SQL["select_watched_alerts"], after, limit)
    return [_watched(row) for row in rows]


async def find_changed(
    connection: Connection, horizon: Horizon
) -> tuple[Horizon, list[WatchedAlert], list[UUID]]:
    """Return the next horizon, the alerts created since `horizon`, and the ids of those ended since."""
    rows = await connection.fetch(_SQL["select_changed_alerts"], horizon.xid, horizon.at)
    following = Horizon(rows[0]["xid"], rows[0]["at"])
    return (following, *_apart([row for row in rows if row["id"] is not None]))


async def find_current(connection: Connection, ids: Sequence[UUID]) -> list[WatchedAlert]:
    """Return those of `ids` that can still fire, as they are now."""
    return _apart(await connection.fetch(_SQL["select_alerts"], list(ids)))[0]


async def record(connection: Connection, term: int, crossings: Sequence[Crossing]) -> set[UUID] | None:
    """Write the new sides, the firings and their events in the caller's transaction.

    Return the ids of the changed alerts, except those that others had changed before, or that had ended
    or expired. Return None, and write nothing, when a term later than `term` has begun.
    """
    if not await connection.fetchval(_SQL["hold_term"], term):
        return None
    rows = await connection.fetch(
        _SQL["change_sides"],
        [crossing.alert.id for crossing in crossings],
        [crossing.alert.version for crossing in crossings],
        [crossing.side for crossing in crossings],
        [crossing.day for crossing in crossings],
        [crossing.fires for crossing in crossings],
        [crossing.quote.as_of for crossing in crossings],
        [crossing.quote.price for crossing in crossings],
    )
    changed = {row["id"]: row for row in rows}
    fired = [one for one in crossings if one.fires and one.alert.id in changed]
    if fired:
        events = await _fire(connection, fired, changed)
        await outbox.add(
            connection,
            [envelope.event(event, message_id=event.firing.id, tenant=event.owner_id) for event in events],
        )
    return set(changed)


async def remove_ended(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` alerts that ended `keep_days` days ago or were deleted; return their number."""
    return affected_rows(await connection.execute(_SQL["clean_alerts"], keep_days, most))


async def remove_firings(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` firings older than `keep_days` days; return how many there were."""
    return affected_rows(await connection.execute(_SQL["clean_firings"], keep_days, most))


async def forget_requests(connection: Connection, *, most: int) -> int:
    """Forget the keys of up to `most` requests a day old; return how many there were."""
    return affected_rows(await connection.execute(_SQL["forget_alert_requests"], most))


async def lock_owner(connection: Connection, owner_id: str) -> None:
    """Lock the owner, so that only the caller's transaction creates alerts for it."""
    await connection.execute(_SQL["lock_alert_owner"], owner_id)


async def find_of_request(connection: Connection, owner_id: str, request_key: str) -> Alert | None:
    """Return the alert that a request with the same key has created."""
    row = await connection.fetchrow(_SQL["find_alert_of_request"], owner_id, request_key)
    return None if row is None else _alert(row)


async def count_armed(connection: Connection, owner_id: str) -> int:
    """Return how many alerts of the owner can fire."""
    return int(await connection.fetchval(_SQL["count_armed_alerts"], owner_id))


async def insert(connection: Connection, wanted: CreateAlert, *, side: int, day: date | None) -> Alert:
    """Store an alert whose value is on `side` now."""
    row = await connection.fetchrow(
        _SQL["insert_alert"],
        wanted.alert_id,
        wanted.owner_id,
        wanted.made_by,
        wanted.request_key,
        wanted.symbol,
        wanted.condition.kind,
        wanted.condition.threshold,
        [target.email for target in wanted.notify],
        wanted.webhooks,
        wanted.once,
        wanted.expires_at,
        side,
        day,
    )
    assert row is not None, "an insert returns its row"
    return _alert(row)


async def get(connection: Connection, alert_id: UUID, owner_id: str) -> Alert | None:
    """Return an alert of the owner."""
    row = await connection.fetchrow(_SQL["get_alert"], alert_id, owner_id)
    return None if row is None else _alert(row)


async def delete(connection: Connection, alert_id: UUID, owner_id: str) -> Alert | None:
    """Mark an alert of the owner as deleted; return its last state."""
    row = await connection.fetchrow(_SQL["delete_alert"], alert_id, owner_id)
    return None if row is None else _alert(row)


async def page(connection: Connection, wanted: ListAlerts, *, limit: int) -> list[Alert]:
    """Return alerts of the owner, newest first."""
    rows = await connection.fetch(
        _SQL["list_alerts"],
        wanted.owner_id,
        wanted.before,
        wanted.symbol,
        wanted.status or None,
        wanted.created_after,
        wanted.created_before,
        limit,
    )
    return [_alert(row) for row in rows]


async def find_owner(connection: Connection, owner_id: str) -> tuple[str, int] | None:
    """Return the epoch of the owner's firings and the offset of the newest."""
    row = await connection.fetchrow(_SQL["find_alert_owner"], owner_id)
    return None if row is None else (str(row["epoch"]), row["last_offset"])


async def firings(
    connection: Connection, owner_id: str, *, after: int, before: int, newest_first: bool, limit: int
) -> list[Firing]:
    """Return firings of the owner between two offsets, both excluded."""
    rows = await connection.fetch(_SQL["list_firings"], owner_id, after, before, newest_first, limit)
    same = ("id", "alert_id", "symbol", "price", "change_percent", "as_of", "source", "simulated")
    return [
        Firing(
            offset=row["number"],
            condition=_condition(row["kind"], row["threshold"]),
            **{name: row[name] for name in same},
        )
        for row in rows
    ]


async def _fire(
    connection: Connection, fired: Sequence[Crossing], changed: dict[UUID, asyncpg.Record]
) -> list[AlertFired]:
    """Store the firings, each at the next offset of its owner, and return their events."""
    owners = Counter(changed[crossing.alert.id]["owner_id"] for crossing in fired)
    rows = await connection.fetch(_SQL["advance_alert_owners"], list(owners), list(owners.values()))
    places = {row["owner_id"]: (str(row["epoch"]), row["last_offset"]) for row in rows}
    events = []
    for crossing in fired:
        row = changed[crossing.alert.id]
        owner_id = row["owner_id"]
        epoch, last_offset = places[owner_id]
        owners[owner_id] -= 1
        events.append(
            AlertFired(
                owner_id=owner_id,
                made_by=row["made_by"],
                epoch=epoch,
                firing=_firing_of(crossing, last_offset - owners[owner_id]),
                notify=[EmailTarget.model_construct(email=email) for email in row["emails"]],
                webhooks=row["webhooks"],
            )
        )
    stored = [event.firing for event in events]
    await connection.execute(
        _SQL["insert_firings"],
        [firing.id for firing in stored],
        [event.owner_id for event in events],
        [firing.offset for firing in stored],
        [firing.alert_id for firing in stored],
        [firing.symbol for firing in stored],
        [firing.condition.kind for firing in stored],
        [firing.condition.threshold for firing in stored],
        [firing.price for firing in stored],
        [firing.change_percent for firing in stored],
        [firing.as_of for firing in stored],
        [firing.source for firing in stored],
        [firing.simulated for firing in stored],
    )
    return events


def _firing_of(crossing: Crossing, offset: int) -> Firing:
    alert, quote = crossing.alert, crossing.quote
    return Firing(
        id=envelope.new_id(),
        offset=offset,
        alert_id=alert.id,
        symbol=alert.symbol,
        condition=_condition(alert.kind, alert.threshold),
        price=quote.price,
        change_percent=quote.change_percent,
        as_of=quote.as_of,
        source=quote.source,
        simulated=quote.simulated,
    )


def _apart(rows: Sequence[asyncpg.Record]) -> tuple[list[WatchedAlert], list[UUID]]:
    """Return the alerts that can fire, and the ids of those that have ended."""
    return [_watched(row) for row in rows if not row["is_over"]], [r["id"] for r in rows if r["is_over"]]


def _watched(row: asyncpg.Record) -> WatchedAlert:
    return WatchedAlert(
        row["id"],
        row["owner_id"],
        row["symbol"],
        row["kind"],
        row["threshold"],
        once=row["once"],
        side=row["side"],
        day=row["day"],
        version=row["version"],
        expires_at=row["expires_at"],
        fired_at=row["fired_at"],
    )


def _alert(row: asyncpg.Record) -> Alert:
    now = datetime.now(row["created_at"].tzinfo)
    return Alert(
        id=row["id"],
        symbol=row["symbol"],
        condition=_condition(row["kind"], row["threshold"]),
        notify=[EmailTarget.model_construct(email=email) for email in row["emails"]],
        webhooks=row["webhooks"],
        once=row["once"],
        status=status_of(
            once=row["once"], fired_count=row["fired_count"], expires_at=row["expires_at"], now=now
        ),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        fired_count=row["fired_count"],
        last_fired_at=row["fired_at"],
        last_price=row["fired_price"],
    )


def _condition(kind: str, threshold: Any) -> Condition:
    return Condition.model_validate({kind: threshold})
