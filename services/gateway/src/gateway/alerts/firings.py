"""Firings of alerts as events, for webhooks that listen to them and those that the alerts name."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chassis import logging, metrics
from chassis.broker.envelope import Delivery
from chassis.postgres import Connection
from contracts.alerts import AlertFired
from contracts.scopes import Scope
from gateway.identity import authority
from gateway.identity.authority import Maker
from gateway.webhooks import events
from gateway.webhooks.events import WebhookEvent

log = logging.get(__name__)

# What the maker of an alert needs to have its firings sent to a webhook: when it is made, and when it fires.
WEBHOOK_SCOPES = (Scope.WEBHOOKS_WRITE, Scope.ALERTS_READ)


async def events_of(connection: Connection, deliveries: Sequence[Delivery[AlertFired]]) -> list[WebhookEvent]:
    """Return an event for each firing, with the named webhooks that the maker of the alert may still use."""
    makers = {_maker(delivery.message) for delivery in deliveries if _named(delivery.message)}
    principals = await authority.principals(connection, makers) if makers else {}
    found: list[WebhookEvent] = []
    for fired in (delivery.message for delivery in deliveries):
        named = _named(fired)
        principal = principals.get(_maker(fired))
        if named and not (principal and all(map(principal.may, WEBHOOK_SCOPES))):
            log.warning(
                "firing not sent to the webhooks of its alert: the alert's maker lacks a scope",
                alert=str(fired.firing.alert_id),
            )
            metrics.WEBHOOK_EVENTS.labels("forbidden").inc(len(named))
            named = frozenset()
        found.append(events.of_firing(fired, named=named))
    return found


def _maker(fired: AlertFired) -> Maker:
    # An access token without these rights cannot have made an alert that names a webhook.
    return Maker(fired.owner_id, fired.made_by, frozenset(WEBHOOK_SCOPES))


def _named(fired: AlertFired) -> frozenset[UUID]:
    return frozenset(webhook_id for webhook_id in fired.webhooks if webhook_id is not None)
