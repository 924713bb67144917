"""Deliveries over HTTP: listed, shown with their attempts, replayed, and made for a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from chassis.broker.envelope import new_id
from chassis.errors import Conflict, NotFound
from chassis.postgres import Connection, Postgres, Row
from contracts.message import Next
from gateway.http.calls import Call
from gateway.http.filters import SteppedResult
from gateway.http.principal import Principal
from gateway.http.replies import HttpReply, document
from gateway.webhooks import delivery_repository, events, service
from gateway.webhooks.delivery_repository import NewDelivery, ReplayChoice
from gateway.webhooks.events import WebhookEvent
from gateway.webhooks.inputs import (
    DeliveriesQuery,
    DeliveryDetail,
    DeliveryPage,
    DeliveryReplay,
    WebhookDelivery,
)
from gateway.webhooks.promises import MOST_PENDING, body_of

MOST_REPLAYED = 1000
_ALL = (*events.TYPES, events.TEST)


class DeliveryService:
    """Shows the deliveries of the caller's webhooks; `wake` is called when some have become due."""

    def __init__(self, postgres: Postgres, wake: Callable[[], None]) -> None:
        self._postgres = postgres
        self._wake = wake

    async def list(self, call: Call, webhook_id: UUID, query: DeliveriesQuery) -> DeliveryPage:
        """Return a page of the deliveries of a webhook, newest first.

        Without types, those of all events that the caller may read.
        """
        readable = _readable(call.principal, query.type)
        if len(readable) < len(_ALL):
            query = query.model_copy(update={"type": readable})
        async with self._postgres.connection() as connection:
            await service.find(connection, call.principal, webhook_id)
            page, following = await delivery_repository.page(connection, webhook_id, query)
        return DeliveryPage(data=[WebhookDelivery(**_view(row)) for row in page], next_cursor=following)

    async def get(self, call: Call, webhook_id: UUID, delivery_id: UUID) -> DeliveryDetail:
        """Return a delivery with its body and attempts, to callers who may read what the event tells of."""
        async with self._postgres.connection() as connection:
            row = await _find(connection, call, webhook_id, delivery_id)
        return DeliveryDetail(
            **_view(row),
            payload=orjson.loads(row["payload"]),
            history=[orjson.loads(attempt) for attempt in row["history"]],
        )

    async def test(self, call: Call, webhook_id: UUID) -> HttpReply:
        """Deliver a test event to a webhook."""
        connection = call.connection
        webhook = await service.hold(connection, call.principal, webhook_id)
        await self._require_room(connection, webhook)
        event = WebhookEvent(
            call.principal.owner_id, events.TEST, datetime.now(UTC), lambda: {"webhook_id": webhook_id}
        )
        made = NewDelivery(new_id(), webhook_id, event.owner_id, event.type, body_of(event))
        await delivery_repository.insert(connection, [made])
        return await self._accepted(call, webhook_id, made.id)

    async def replay(self, call: Call, webhook_id: UUID, delivery_id: UUID) -> HttpReply:
        """Begin a delivery again that has ended. Raise `Conflict` if it has not."""
        connection = call.connection
        webhook = await service.hold(connection, call.principal, webhook_id)
        await _find(connection, call, webhook_id, delivery_id)
        await self._require_room(connection, webhook)
        if await delivery_repository.replay(connection, delivery_id) is None:
            raise Conflict("The delivery has not ended: it waits for its next attempt.")
        return await self._accepted(call, webhook_id, delivery_id)

    async def replay_matching(self, call: Call, webhook_id: UUID, query: DeliveryReplay) -> HttpReply:
        """Begin the deliveries again that match and have ended, the oldest first.

        Without types, those of all events that the caller may read.
        """
        caller, connection = call.principal, call.connection
        webhook = await service.hold(connection, caller, webhook_id)
        readable = _readable(caller, query.type)
        choice = ReplayChoice(
            webhook_id,
            query.status or ["failed", "withdrawn"],
            readable,
            query.created_after,
            query.created_before,
        )
        found, following = await delivery_repository.find_to_replay(
            connection, choice, after=query.cursor, most=MOST_REPLAYED
        )
        changed = len(found)
        if not query.dry_run:
            await self._require_room(connection, webhook)
            changed = await delivery_repository.replay_each(connection, found)
            call.after_commit.append(self._look)
        result = SteppedResult(
            matched=len(found),
            changed=changed,
            dry_run=query.dry_run,
            complete=following is None,
            next_cursor=None if following is None else str(following),
        )
        recorded = {**result.model_dump(), "types": readable}
        return HttpReply(document(result), recorded=document(recorded))

    def show_again(self, call: Call, reply: HttpReply) -> HttpReply:
        """Return the recorded answer of a replay. Raise `Forbidden` for events that the caller may not read.

        Another key of the owner may have made the first request, with scopes that this one does not have.
        """
        assert isinstance(reply.body, bytes)
        recorded = orjson.loads(reply.body)
        # The answer about one delivery has its type; the previous release recorded no types of many.
        types = recorded.pop("types", [recorded["type"]] if "type" in recorded else _ALL)
        call.principal.require(*{events.scope_of(name) for name in types})
        return replace(reply, body=document(recorded))

    async def _require_room(self, connection: Connection, webhook: Row) -> None:
        if webhook["status"] != "active":
            raise Conflict("The webhook is disabled: enable it first.")
        pending = await delivery_repository.count_pending(connection, [webhook["id"]], most=MOST_PENDING)
        if pending[webhook["id"]] >= MOST_PENDING:
            raise Conflict(f"{MOST_PENDING} deliveries wait for this webhook already, which is the limit.")

    async def _accepted(self, call: Call, webhook_id: UUID, delivery_id: UUID) -> HttpReply:
        row = await delivery_repository.find(call.connection, delivery_id, webhook_id)
        assert row is not None, "the delivery was written in this transaction"
        call.after_commit.append(self._look)
        location = f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}"
        return HttpReply(document(WebhookDelivery(**_view(row))), location=location)

    async def _look(self) -> None:
        self._wake()


async def _find(connection: Connection, call: Call, webhook_id: UUID, delivery_id: UUID) -> Row:
    await service.find(connection, call.principal, webhook_id)
    row = await delivery_repository.find(connection, delivery_id, webhook_id)
    if row is None:
        raise NotFound(f"The webhook has no delivery {delivery_id}.")
    call.principal.require(events.scope_of(row["type"]))
    return row


def _readable(caller: Principal, wanted: Sequence[str] | None) -> Sequence[str]:
    """Return the `wanted` types of events, or all that the caller may read. Raise `Forbidden` for others."""
    caller.require(*{events.scope_of(name) for name in wanted or ()})
    return wanted or [name for name in _ALL if caller.may(events.scope_of(name))]


def _view(row: Row) -> dict[str, Any]:
    step = None
    if row["status"] == "pending":
        number = row["attempts"] + 1
        step = Next(what=f"attempt {number}", by=row["next_at"])
    return {name: row[name] for name in WebhookDelivery.model_fields if name in row} | {"next": step}
