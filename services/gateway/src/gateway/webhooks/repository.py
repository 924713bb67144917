"""Webhooks of owners in PostgreSQL: functions on the caller's connection."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from chassis import queries
from chassis.postgres import Connection, Row, affected_rows
from gateway.http.principal import Principal
from gateway.webhooks.inputs import WebhookInput, WebhooksQuery
from gateway.webhooks.secret_safe import SealedSecret

_SQL = queries.of("gateway")


async def lock_owner(connection: Connection, owner_id: str) -> None:
    """Lock the number of webhooks of an owner until the transaction ends."""
    await connection.execute(_SQL["lock_webhooks_of_owner"], owner_id)


async def count_of_owner(connection: Connection, owner_id: str) -> int:
    """Return how many webhooks the owner has."""
    return int(await connection.fetchval(_SQL["count_webhooks_of_owner"], owner_id))


async def insert(
    connection: Connection, webhook_id: UUID, maker: Principal, wanted: WebhookInput, secret: SealedSecret
) -> Row:
    """Store a webhook of its maker."""
    rows = await connection.fetch(
        _SQL["insert_webhook"],
        webhook_id,
        maker.owner_id,
        wanted.url,
        wanted.events,
        wanted.description,
        maker.key_id,
        maker.token_scopes or [],
        secret.content,
        secret.sealed_with,
    )
    return rows[0]


async def find(connection: Connection, webhook_id: UUID, owner_id: str) -> Row | None:
    """Return a webhook of the owner."""
    return await connection.fetchrow(_SQL["find_webhook"], webhook_id, owner_id)


async def known(connection: Connection, owner_id: str, webhook_ids: Collection[UUID]) -> set[UUID]:
    """Return those of these ids that are webhooks of the owner."""
    rows = await connection.fetch(_SQL["find_known_webhooks"], list(webhook_ids), owner_id)
    return {row["id"] for row in rows}


async def lock(connection: Connection, webhook_id: UUID, owner_id: str) -> Row | None:
    """Return a webhook of the owner, locked against other changes until the transaction ends."""
    return await connection.fetchrow(_SQL["lock_webhook"], webhook_id, owner_id)


async def page(connection: Connection, owner_id: str, query: WebhooksQuery) -> list[Row]:
    """Return a page of the owner's webhooks, newest first, plus one more if there is one."""
    return await connection.fetch(_SQL["list_webhooks"], owner_id, query.cursor, query.limit + 1)


async def change(
    connection: Connection,
    webhook_id: UUID,
    maker: Principal,
    *,
    url: str,
    events: Sequence[str],
    description: str,
    status: str,
    disabled_reason: str | None,
) -> Row:
    """Replace the settings of a locked webhook; from now on the rights of `maker` count."""
    rows = await connection.fetch(
        _SQL["change_webhook"],
        webhook_id,
        url,
        events,
        description,
        status,
        disabled_reason,
        maker.key_id,
        maker.token_scopes or [],
    )
    return rows[0]


async def rotate(
    connection: Connection, webhook_id: UUID, secret: SealedSecret, *, previous_until: datetime | None
) -> Row:
    """Replace the secret of a locked webhook; the previous one signs, too, until then."""
    rows = await connection.fetch(
        _SQL["rotate_webhook_secret"], webhook_id, secret.content, secret.sealed_with, previous_until
    )
    return rows[0]


async def delete(connection: Connection, webhook_id: UUID) -> None:
    """Mark a locked webhook as deleted; it is removed with its deliveries later."""
    await connection.execute(_SQL["delete_webhook"], webhook_id)


async def disable(connection: Connection, webhook_id: UUID, url: str, reason: str) -> bool:
    """Disable an active webhook. Return False if it has another URL by now, or is not active."""
    tag = await connection.execute(_SQL["disable_webhook"], webhook_id, url, reason)
    return affected_rows(tag) > 0


async def lock_disabled(connection: Connection, webhook_id: UUID) -> bool:
    """Lock a webhook that is disabled until the transaction ends; return False if it is not disabled."""
    return await connection.fetchval(_SQL["lock_disabled_webhook"], webhook_id) is not None


async def withdraw(connection: Connection, webhook_id: UUID, *, most: int) -> int:
    """Withdraw up to `most` of the deliveries that wait for a locked webhook; return how many."""
    return affected_rows(await connection.execute(_SQL["withdraw_deliveries"], webhook_id, most))


async def to_withdraw_from(connection: Connection, *, limit: int) -> list[UUID]:
    """Return disabled webhooks for which deliveries still wait."""
    return [row["id"] for row in await connection.fetch(_SQL["find_webhooks_to_withdraw_from"], limit)]


async def listening(
    connection: Connection,
    owner_ids: Collection[str],
    event_types: Collection[str],
    webhook_ids: Collection[UUID] = (),
) -> list[Row]:
    """Return the active webhooks of these owners that listen to these types, or have these ids.

    They are locked until the transaction ends against being disabled.
    """
    return await connection.fetch(
        _SQL["find_listening_webhooks"], list(owner_ids), list(event_types), list(webhook_ids)
    )


async def lock_sealed_otherwise(
    connection: Connection, sealed_with: str, *, after: UUID, limit: int
) -> list[Row]:
    """Return and lock webhooks whose secrets are encrypted with another pepper, in the order of their ids."""
    return await connection.fetch(_SQL["find_sealed_webhooks"], sealed_with, after, limit)


async def reseal(
    connection: Connection, webhook_id: UUID, secret: SealedSecret, previous: SealedSecret | None
) -> None:
    """Replace the encrypted secrets of a locked webhook by the same ones, encrypted anew."""
    content = None if previous is None else previous.content
    await connection.execute(_SQL["reseal_webhook"], webhook_id, secret.content, content, secret.sealed_with)


async def remove_deleted(connection: Connection, *, most: int) -> bool:
    """Remove up to `most` deliveries of deleted webhooks, and those without any. Return if more are left."""
    tag = await connection.execute(_SQL["remove_deliveries_of_deleted"], most)
    await connection.execute(_SQL["remove_deleted_webhooks"])
    return tag == f"DELETE {most}"
