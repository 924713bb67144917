"""Upkeep of webhooks: old deliveries are removed, and secrets encrypted anew after a rotation."""

from __future__ import annotations

from uuid import UUID

from chassis import logging, metrics
from chassis.postgres import Connection, Postgres, Row
from gateway.webhooks import delivery_repository, repository, withdrawing
from gateway.webhooks.secret_safe import SealedSecret, SecretSafe, UnreadableSecret

log = logging.get(__name__)

KEEP_DAYS = 7
# For how long deliveries wait for a disabled user to be enabled again.
WAIT_DAYS = 7
_STEP = 1000
_PAGE = 100


class WebhookUpkeep:
    """Maintains webhooks in the background, in short transactions."""

    def __init__(self, postgres: Postgres, safe: SecretSafe) -> None:
        self._postgres = postgres
        self._safe = safe

    async def remove_old(self) -> None:
        """Remove deliveries that ended some days ago, and deleted webhooks with all of theirs.

        Deliveries of users who have been disabled for some days end, and those that wait for a disabled
        webhook, because the gateway that disabled it has stopped.
        """
        async with self._postgres.connection() as connection:
            disabled = await repository.to_withdraw_from(connection, limit=_PAGE)
        for webhook_id in disabled:
            await withdrawing.withdraw_all(self._postgres, webhook_id)
        withdrawn = _STEP
        while withdrawn == _STEP:
            async with self._postgres.connection() as connection:
                withdrawn = await delivery_repository.withdraw_of_disabled_users(
                    connection, wait_days=WAIT_DAYS, most=_STEP
                )
        removed = _STEP
        while removed == _STEP:
            async with self._postgres.connection() as connection:
                removed = await delivery_repository.remove_finished(
                    connection, keep_days=KEEP_DAYS, most=_STEP
                )
            metrics.REMOVED.labels("delivery").inc(removed)
        are_left = True
        while are_left:
            async with self._postgres.transaction() as connection:
                are_left = await repository.remove_deleted(connection, most=_STEP)

    async def reseal(self) -> None:
        """Encrypt the secrets anew that were encrypted with the previous pepper."""
        after: UUID | None = UUID(int=0)
        while after is not None:
            async with self._postgres.transaction() as connection:
                after = await self._reseal_page(connection, after)

    async def _reseal_page(self, connection: Connection, after: UUID) -> UUID | None:
        """Encrypt the secrets of a page of webhooks anew; return where the next page begins, if any."""
        rows = await repository.lock_sealed_otherwise(
            connection, self._safe.current, after=after, limit=_PAGE
        )
        for row in rows:
            try:
                secret, previous = self._renewed(row, "secret"), self._renewed(row, "previous_secret")
            except UnreadableSecret as error:
                log.error("webhook secret cannot be read", webhook=str(row["id"]), reason=str(error))
                continue
            assert secret is not None, "every webhook has a secret"
            await repository.reseal(connection, row["id"], secret, previous)
        return rows[-1]["id"] if len(rows) == _PAGE else None

    def _renewed(self, row: Row, name: str) -> SealedSecret | None:
        content = row[name]
        return None if content is None else self._safe.seal(self._safe.open(content, row["sealed_with"]))
