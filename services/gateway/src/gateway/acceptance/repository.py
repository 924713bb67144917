"""Acceptances and idempotency records in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from chassis import inbox, outbox, outbox_rows, queries
from chassis.broker import bundles
from chassis.broker.envelope import Outgoing
from chassis.postgres import Connection, affected_rows
from contracts.parked import ParkedChanged, ParkedState
from gateway.http.calls import IdempotencyKey

_SQL = queries.of("gateway")

_STATUS_OF_PARKED: Mapping[ParkedState, str] = {
    "parked": "parked",
    "replayed": "queued",
    "discarded": "failed",
}


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Accepted work: its owner, its kind and the last status that was reported.

    `reason` says why its command is parked or was given up. `payload_hash` is set for work with a unique key.
    """

    id: UUID
    owner_id: str
    kind: str
    status: str
    operation: str | None
    accepted_at: datetime
    reason: str | None = None
    payload_hash: bytes | None = None
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer to the request with this key; `status` is None while the request is running."""

    body_hash: bytes
    status: int | None
    answer: bytes
    location: str | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class UniqueClaim:
    """A key that only one piece of work may hold, and its current holder, if any."""

    key: str
    replaces: UUID | None


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work to be accepted: its record, its messages, and the answer to its caller.

    `claim` is the token with which a long request claimed its idempotency key.
    """

    acceptance: Acceptance
    messages: Sequence[Outgoing]
    answer: bytes
    location: str
    key: IdempotencyKey | None = None
    claim: bytes | None = None
    unique: UniqueClaim | None = None


async def accept(connection: Connection, group: Sequence[Work]) -> set[UUID]:
    """Record each piece of work whole or not at all; return the ids of those that were new."""
    acceptances = [work.acceptance for work in group]
    messages = [(work.acceptance.id, message) for work in group for message in work.messages]
    rows = await connection.fetch(
        _SQL["accept"],
        [acceptance.id for acceptance in acceptances],
        [acceptance.owner_id for acceptance in acceptances],
        [acceptance.kind for acceptance in acceptances],
        [acceptance.operation for acceptance in acceptances],
        [work.key.key if work.key else None for work in group],
        [work.key.body_hash if work.key else None for work in group],
        [work.answer for work in group],
        [work.location for work in group],
        [acceptance.accepted_at for acceptance in acceptances],
        [work.claim for work in group],
        [id_ for id_, _ in messages],
        *outbox.columns([message for _, message in messages]),
        [acceptance.payload_hash for acceptance in acceptances],
        [work.unique.key if work.unique else None for work in group],
        [work.unique.replaces if work.unique else None for work in group],
        outbox_rows.numbers([message for _, message in messages]),
        orjson.dumps(outbox_rows.bundle_headers()).decode(),
        bundles.MESSAGE_TYPE,
    )
    return {row["id"] for row in rows}


async def find(connection: Connection, id: UUID) -> Acceptance | None:  # noqa: A002 - its own name
    """Return an acceptance by id."""
    row = await connection.fetchrow(_SQL["find_acceptance"], id)
    return Acceptance(**row) if row else None


async def find_unique(connection: Connection, owner_id: str, key: str) -> Acceptance | None:
    """Return the work that holds or held a unique key, whatever its status."""
    row = await connection.fetchrow(_SQL["find_unique"], owner_id, key)
    return Acceptance(**row) if row else None


async def find_answer(connection: Connection, owner_id: str, key: str) -> StoredAnswer | None:
    """Return the answer to an idempotency key of the last 24 hours."""
    row = await connection.fetchrow(_SQL["find_idempotency"], owner_id, key)
    return StoredAnswer(**row) if row else None


async def claim_idempotency(connection: Connection, owner_id: str, key: IdempotencyKey) -> bool:
    """Claim a key for the effect of this transaction; return False when it is taken.

    Waits while another transaction holds the key.
    """
    return await connection.fetchval(_SQL["claim_idempotency"], owner_id, key.key, key.body_hash) is not None


async def record_idempotency(
    connection: Connection,
    owner_id: str,
    key: str,
    *,
    status: int,
    answer: bytes,
    location: str | None,
    etag: str | None,
) -> None:
    """Record the answer to the request that has claimed `key` in this transaction."""
    await connection.execute(_SQL["record_idempotency"], owner_id, key, status, answer, location, etag)


async def begin_idempotency(
    connection: Connection, owner_id: str, key: str, claim: bytes, *, lasts_s: float
) -> bool:
    """Claim a key for a request beyond this transaction, for `lasts_s`; return False when it is taken."""
    query = _SQL["begin_idempotency"]
    return await connection.fetchval(query, owner_id, key, claim, lasts_s) is not None


async def renew_idempotency(connection: Connection, owner_id: str, key: str, claim: bytes) -> None:
    """Note that the request with this claim is still running."""
    await connection.execute(_SQL["renew_idempotency"], owner_id, key, claim)


async def settle_idempotency(
    connection: Connection,
    owner_id: str,
    key: IdempotencyKey,
    claim: bytes,
    *,
    status: int,
    answer: bytes,
    location: str | None,
    etag: str | None,
) -> bool:
    """Record the answer to the request with this claim; return False when another one has the key by now."""
    query = _SQL["settle_idempotency"]
    recorded = (key.body_hash, status, answer, location, etag)
    return await connection.fetchval(query, owner_id, key.key, claim, *recorded) is not None


async def free_idempotency(connection: Connection, owner_id: str, key: str, claim: bytes) -> None:
    """Release a key that is claimed by a request that has failed."""
    await connection.execute(_SQL["free_idempotency"], owner_id, key, claim)


async def abandon(
    connection: Connection,
    acceptance: Acceptance,
    key: str | None,
    claim: bytes,
    messages: Sequence[Outgoing],
) -> None:
    """Release a claimed key and promise `messages`, unless the work was accepted."""
    await connection.execute(
        _SQL["abandon"],
        acceptance.id,
        acceptance.owner_id,
        key,
        claim,
        *outbox.columns(messages),
    )


async def remove_idempotency(connection: Connection, *, most: int) -> int:
    """Remove up to `most` idempotency records older than 24 hours; return how many there were."""
    tag = await connection.execute(_SQL["clean_idempotency"], most)
    return affected_rows(tag)


async def remove_ended(connection: Connection, *, keep_days: int, most: int) -> int:
    """Remove up to `most` acceptances that ended `keep_days` days ago; return how many there were.

    One whose id may come again stays until no inbox drops its message any more.
    """
    forgotten_days = inbox.KEEP_DAYS + 1
    tag = await connection.execute(_SQL["clean_acceptances"], keep_days, most, forgotten_days)
    return affected_rows(tag)


async def change_statuses(connection: Connection, changes: Sequence[tuple[UUID, str, datetime]]) -> None:
    """Record newer statuses; the last one for each id counts."""
    newest = {id_: (status, at) for id_, status, at in sorted(changes, key=lambda change: change[2])}
    await connection.execute(
        _SQL["change_statuses"],
        list(newest),
        [status for status, _ in newest.values()],
        [at for _, at in newest.values()],
    )


async def note_parked(connection: Connection, changed: ParkedChanged) -> None:
    """Record the decisions about parked commands of accepted work."""
    status = _STATUS_OF_PARKED[changed.state]
    reason = "discarded" if changed.state == "discarded" else changed.reason
    await connection.execute(_SQL["note_parked"], changed.message_ids, status, reason, changed.at)
