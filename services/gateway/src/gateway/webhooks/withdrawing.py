"""Withdrawal of what waits for a disabled webhook: up to twenty thousand deliveries, a step at a time."""

from __future__ import annotations

from uuid import UUID

from chassis.postgres import Postgres
from gateway.webhooks import repository

# Deliveries that one transaction withdraws. It holds the webhook meanwhile, for which events may be promised.
STEP = 1000


async def withdraw_all(postgres: Postgres, webhook_id: UUID) -> None:
    """Withdraw what waits for a webhook while it is disabled, each step in a transaction of its own.

    The transaction that disables it makes the first step, so that it is done at once where little waits. What
    an interruption leaves is withdrawn by the upkeep, and at the latest before the webhook is enabled again.
    """
    withdrawn = STEP
    while withdrawn == STEP:
        async with postgres.transaction() as connection:
            if not await repository.lock_disabled(connection, webhook_id):
                return
            withdrawn = await repository.withdraw(connection, webhook_id, most=STEP)
