"""Parking: messages that could not be handled are kept, with the reason, in the service's parked queue."""

from __future__ import annotations

import time

from chassis.broker.envelope import Outgoing
from chassis.broker.incoming import Incoming
from chassis.broker.retries import without_broker_headers
from contracts import headers as names
from contracts.topology import own_exchange, parked_queue


def copy_for(incoming: Incoming, service: str, *, queue: str, reason: str, error: str) -> Outgoing:
    """Return the parked copy of a message: the same id and body, with the reason, time and queue."""
    return Outgoing(
        exchange=own_exchange(service),
        routing_key=parked_queue(service),
        body=incoming.body,
        message_type=incoming.message_type,
        message_id=incoming.message_id,
        headers={
            **without_broker_headers(incoming.headers),
            names.QUEUE: queue,
            names.REASON: reason,
            names.FIRST_ERROR: incoming.headers.get(names.FIRST_ERROR, error),
            names.ERROR: error,
            names.PARKED_AT: int(time.time() * 1000),
        },
    )
