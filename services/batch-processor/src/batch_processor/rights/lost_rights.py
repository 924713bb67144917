"""Lost rights: work that was accepted before its owner lost rights, and arrives later, does not have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from batch_processor.rights import repository
from chassis.broker.envelope import Delivery
from chassis.postgres import Connection
from contracts.batches import CreateBatch, RetryBatch, SealBatch

# A gateway may know a change of rights 5 s later than it was made, and has a clock of its own.
KNOWN_WITHIN = timedelta(seconds=10)

M = TypeVar("M", CreateBatch, SealBatch, RetryBatch)


@dataclass(frozen=True, slots=True)
class Loss:
    """The scopes that were left to an owner who lost others at a time."""

    owner_id: str
    lost_at: datetime
    scopes_left: Sequence[str]


def held(scopes: Iterable[str] | None, losses: Iterable[Loss], *, since: datetime) -> list[str] | None:
    """Return those of `scopes`, which an owner had at `since`, that its `losses` have left.

    None stands for scopes that are not known: any.
    """
    left = None if scopes is None else list(scopes)
    for loss in losses:
        if since <= loss.lost_at + KNOWN_WITHIN:
            left = [
                scope for scope in (loss.scopes_left if left is None else left) if scope in loss.scopes_left
            ]
    return left


async def note(connection: Connection, loss: Loss) -> None:
    """Store a loss. Transactions that have read losses before end first, and others wait for this one."""
    await repository.exclude_readers(connection)
    await repository.note_loss(connection, loss.owner_id, loss.lost_at, loss.scopes_left)


async def without_lost(connection: Connection, deliveries: Sequence[Delivery[M]]) -> list[Delivery[M]]:
    """Return the messages without the scopes that their owners have lost since.

    Call this before the transaction locks anything: it waits for a loss that is being noted.
    """
    owners = {delivery.message.owner_id for delivery in deliveries}
    losses = [Loss(*row) for row in await repository.losses_of(connection, owners)]
    if not losses:
        return list(deliveries)
    limited = []
    for delivery in deliveries:
        message = delivery.message
        of_owner = [loss for loss in losses if loss.owner_id == message.owner_id]
        scopes = held(message.scopes, of_owner, since=_since(message))
        limited.append(replace(delivery, message=message.model_copy(update={"scopes": scopes})))
    return limited


def _since(message: CreateBatch | SealBatch | RetryBatch) -> datetime:
    """Return when the owner had the scopes of a message."""
    if isinstance(message, RetryBatch):
        return message.requested_at or datetime.now(UTC)
    follow_up_since = message.scoped_at if isinstance(message, CreateBatch) else None
    return follow_up_since or message.accepted_at
