"""Promised deliveries: stored in the transaction that handles their events."""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC
from functools import cached_property
from uuid import UUID

from chassis import logging, metrics
from chassis.broker.envelope import new_id
from chassis.postgres import Connection, Row
from gateway.http.principal import Principal
from gateway.http.replies import document
from gateway.identity import authority
from gateway.identity.authority import Maker
from gateway.identity.key_repository import known_scopes
from gateway.webhooks import delivery_repository, events, repository
from gateway.webhooks.delivery_repository import NewDelivery
from gateway.webhooks.events import WebhookEvent

log = logging.get(__name__)

# The deliveries that may wait for one webhook; further events are not delivered to it.
MOST_PENDING = 20_000
# To count twenty thousand deliveries takes the database milliseconds, for each webhook of an owner, so it is
# not done again with each event: as many more may wait as other gateways promise in this time.
COUNTED_FOR_S = 5.0
_MOST_COUNTED = 1_000
# What one statement stores: the deliveries of a group of events have its bytes once for each webhook.
MOST_STORED_AT_ONCE = 500
MOST_CHARACTERS_AT_ONCE = 256 * 1024


class _ToldEvent:
    """An event, and the body of the requests that deliver it, written once for all webhooks."""

    def __init__(self, event: WebhookEvent) -> None:
        self.event = event

    @cached_property
    def body(self) -> str:
        """The body, written when the first webhook needs it."""
        return body_of(self.event)


class PendingCounts:
    """The numbers of deliveries that wait for the webhooks with recent events.

    A count is used for some seconds, and what is promised here meanwhile is added to it. Promises of other
    gateways, and deliveries that end, show in the next count.
    """

    def __init__(self) -> None:
        self._counted: OrderedDict[UUID, tuple[float, int]] = OrderedDict()

    async def of(self, connection: Connection, webhook_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """Return how many deliveries wait for each of these webhooks, counted up to `MOST_PENDING`."""
        now = time.monotonic()
        stale = [one for one in webhook_ids if self._counted.get(one, (0.0, 0))[0] <= now]
        if stale:
            found = await delivery_repository.count_pending(connection, stale, most=MOST_PENDING)
            for webhook_id, pending in found.items():
                self._counted[webhook_id] = now + COUNTED_FOR_S, pending
                self._counted.move_to_end(webhook_id)
        counts = {one: self._counted[one][1] for one in webhook_ids}
        while len(self._counted) > _MOST_COUNTED:
            self._counted.popitem(last=False)
        return counts

    def add(self, webhook_id: UUID, promised: int) -> None:
        """Count deliveries that were promised to a webhook."""
        until, pending = self._counted.get(webhook_id, (0.0, 0))
        if until:
            self._counted[webhook_id] = until, pending + promised


class Promises:
    """Promises events to the webhooks that listen to them; `wake` is called once deliveries are committed."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._has_promised = False
        self._counts = PendingCounts()

    def committed(self) -> None:
        """Note that a transaction of `promise` has been committed."""
        if self._has_promised:
            self._has_promised = False
            self._wake()

    async def promise(self, connection: Connection, happened: Collection[WebhookEvent]) -> None:
        """Store a delivery of each event for each webhook of its owner that listens to it or is named.

        A webhook gets only what the credential that made or last changed it may read now.
        """
        if not happened:
            return
        found = await repository.listening(
            connection,
            {event.owner_id for event in happened},
            {event.type for event in happened},
            {webhook_id for event in happened for webhook_id in event.named},
        )
        if not found:
            return
        makers = {row["id"]: _maker(row) for row in found}
        principals = await authority.principals(connection, set(makers.values()))
        pending = await self._counts.of(connection, makers.keys())
        told: defaultdict[str, list[_ToldEvent]] = defaultdict(list)
        for event in happened:
            told[event.owner_id].append(_ToldEvent(event))
        deliveries: list[NewDelivery] = []
        characters = 0
        for row in found:
            wanted = [
                one
                for one in told[row["owner_id"]]
                if one.event.type in row["events"] or row["id"] in one.event.named
            ]
            room = max(0, MOST_PENDING - pending[row["id"]])
            kept = _kept(row["id"], wanted, principals.get(makers[row["id"]]), room)
            self._counts.add(row["id"], len(kept))
            for one in kept:
                deliveries.append(_delivery(row["id"], one))
                characters += len(one.body)
                if len(deliveries) == MOST_STORED_AT_ONCE or characters >= MOST_CHARACTERS_AT_ONCE:
                    await delivery_repository.insert(connection, deliveries)
                    deliveries, characters = [], 0
            self._has_promised |= bool(kept)
        if deliveries:
            await delivery_repository.insert(connection, deliveries)


def body_of(event: WebhookEvent) -> str:
    """Return the body of the requests that deliver an event."""
    at = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return document({"type": event.type, "timestamp": at, "data": event.data()}).decode()


def _maker(row: Row) -> Maker:
    return Maker(row["owner_id"], row["made_by"], known_scopes(row["maker_scopes"]))


def _kept(
    webhook_id: UUID, wanted: Sequence[_ToldEvent], maker: Principal | None, room: int
) -> Sequence[_ToldEvent]:
    """Return those events that the maker may learn of and for which there is room."""
    allowed = [one for one in wanted if maker is not None and maker.may(events.scope_of(one.event.type))]
    if forbidden := len(wanted) - len(allowed):
        log.warning("events not delivered: the maker of the webhook lacks a scope", webhook=str(webhook_id))
        metrics.WEBHOOK_EVENTS.labels("forbidden").inc(forbidden)
    if dropped := max(0, len(allowed) - room):
        log.warning("events not delivered: too many deliveries wait already", webhook=str(webhook_id))
        metrics.WEBHOOK_EVENTS.labels("dropped").inc(dropped)
    kept = allowed[:room]
    metrics.WEBHOOK_EVENTS.labels("promised").inc(len(kept))
    return kept


def _delivery(webhook_id: UUID, told: _ToldEvent) -> NewDelivery:
    return NewDelivery(new_id(), webhook_id, told.event.owner_id, told.event.type, told.body)
